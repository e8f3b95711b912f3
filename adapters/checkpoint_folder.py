"""Checkpoints as folders: finding the newest whole one, verifying, pruning. Imports no torch.

step_000100/adapter/        PEFT's own format; opens with PeftModel.from_pretrained alone
step_000100/trainer_state/  state.safetensors: master/… (float32), and the optimizer's, as exp_avg/…
step_000100/manifest.json   written last: sha256 of every file, base, recipe digest, step
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from adapters.base_ref import BaseRef
from recipes.errors import CheckpointError
from recipes.files import sha256

MANIFEST = "manifest.json"


def newest(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is complete and unaltered; torn ones are passed over."""
    for folder in sorted(checkpoints.glob("step_*"), reverse=True):
        try:
            verify(folder)
        except CheckpointError:
            continue
        return folder
    return None


def verify(folder: Path) -> dict[str, Any]:
    """The manifest, after every file it names was read back and found the same.

    Raises `CheckpointError` that names the file.
    """
    manifest = read_manifest(folder)
    for name, digest in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file}: is missing from the checkpoint")
        if sha256(file) != digest:
            raise CheckpointError(f"{file}: differs from what was saved")
    return manifest


def write_manifest(folder: Path, *, step: int, base: BaseRef, recipe_digest: str) -> None:
    """Seal a checkpoint whose other files are all written."""
    manifest = {
        "step": step,
        "base": base.as_dict(),
        "recipe_digest": recipe_digest,
        "files": {
            str(file.relative_to(folder)): sha256(file)
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, unverified."""
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{file}: checkpoint has no readable manifest: {error}") from error
    if not isinstance(manifest, dict) or "files" not in manifest:
        raise CheckpointError(f"{file}: is no manifest of a checkpoint")
    return manifest


def folder_of(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return checkpoints / f"step_{step:06d}"


def adapter_folder(checkpoint: Path) -> Path:
    """The part of a checkpoint that PEFT opens."""
    return checkpoint / "adapter"


def check_base(folder: Path, base: BaseRef) -> None:
    """Raises `CheckpointError` when a checkpoint was trained on another base."""
    saved = read_manifest(folder)["base"]
    if saved["digest"] != base.digest:
        raise CheckpointError(
            f"{folder}: was trained on {saved['source']} ({saved['digest'][:12]}), "
            f"not on {base.source} ({base.digest[:12]}). Name the same base in base.source"
        )


def prune(checkpoints: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what an interrupted save left aside."""
    for old in sorted(checkpoints.glob("step_*"))[:-keep]:
        shutil.rmtree(old)
    for torn in checkpoints.glob(".step_*"):
        shutil.rmtree(torn)
