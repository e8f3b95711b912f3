"""Checkpoints without a model: files with a manifest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from adapters.base_ref import BaseRef
from adapters.checkpoint_folder import (
    MANIFEST,
    Origin,
    Position,
    folder_of,
    read_origin,
    read_position,
    write_manifest,
)

FILES = ("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "trainer_state/state")


def make_checkpoint(
    run_dir: Path, step: int, *, scores: Mapping[str, float] | None = None, text: str = ""
) -> Path:
    """The checkpoint of a step, with three files of some hundred bytes."""
    folder = folder_of(run_dir / "checkpoints", step)
    shutil.rmtree(folder, ignore_errors=True)
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} of step {step} {text}" * 20)
    base = BaseRef(source="base", revision=None, digest="0" * 64, parts={})
    write_manifest(
        folder,
        Origin(base=base, recipe_digest="r", data_digest="d", dtype="float32"),
        Position(step=step, scores=scores or {}),
    )
    return folder


def reseal_files(folder: Path) -> Path:
    """Let a checkpoint's manifest name its files as they are now."""
    origin, position = read_origin(folder), read_position(folder)
    (folder / MANIFEST).unlink()
    write_manifest(folder, origin, position)
    return folder
