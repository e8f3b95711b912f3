"""`shoal verify`: whether what lies somewhere is whole, and to which base it belongs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from adapters.base_files import digest_of
from adapters.base_ref import read_config
from adapters.checkpoint_folder import (
    MANIFEST,
    adapter_folder,
    read_manifest,
    total_bytes,
    verify,
)
from adapters.exported import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    PICKLES,
    is_export,
    kind_of,
    kind_of_adapter,
    verify_export,
)
from launcher.plan.report import bytes_text
from launcher.records.runs import is_run
from recipes.errors import BaseModelError, CheckpointError, DataError, ShoalError
from recipes.files import sha256
from trainer import shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found of one thing."""

    path: Path
    whole: bool
    said: str
    """What it is, or what is wrong with it."""

    def __str__(self) -> str:
        return f"{'whole' if self.whole else 'BAD':<6} {self.path}: {self.said}"


def verify_path(path: Path) -> list[Verdict]:
    """A verdict on a folder, on each checkpoint if it is a run's. Nothing is unpickled.

    Raises `CheckpointError` when nothing that shoal knows lies there.
    """
    if is_run(path):
        checkpoints = sorted((path / "checkpoints").glob("step_*"))
        if not checkpoints:
            raise CheckpointError(f"{path}: this run has no checkpoint yet")
        return [_verdict(folder, _checkpoint) for folder in checkpoints]
    for is_it, look in _KINDS:
        if is_it(path):
            return [_verdict(path, look)]
    there = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) if path.is_dir() else ""
    found = f"it holds {there}" if there else "there is no such folder, or it is empty"
    raise CheckpointError(
        f"{path}: is no run, checkpoint, export, adapter, prepared data or base; {found}"
    )


def _verdict(path: Path, look: Callable[[Path], str]) -> Verdict:
    try:
        return Verdict(path=path, whole=True, said=look(path))
    except ShoalError as error:
        said = str(error).removeprefix(f"{path}: ").removeprefix(f"{path}/")
        return Verdict(path=path, whole=False, said=said)


def _checkpoint(folder: Path) -> str:
    manifest = verify(folder)
    base = manifest["base"]
    return (
        f"checkpoint of step {manifest['step']}, {bytes_text(total_bytes(folder))}, "
        f"{_kind_of(adapter_folder(folder))} on {base['source']} (base {base['digest'][:12]}, "
        f"data {manifest['data_digest'][:12]})"
    )


def _export(folder: Path) -> str:
    manifest = verify_export(folder)
    base, kind = manifest["base"], kind_of(manifest)
    what = f"{kind_of_adapter(folder)} adapter" if kind == "adapter" else kind
    return (
        f"exported {what} of step {manifest['step']}, {bytes_text(total_bytes(folder))}, made on "
        f"{base['source']} (base {base['digest'][:12]}, data {manifest['data_digest'][:12]})"
    )


def _adapter(folder: Path) -> str:
    """By the manifest where it lies in a checkpoint; elsewhere only whether its file is whole."""
    kind = _kind_of(folder)
    checkpoint = folder.parent
    if folder == adapter_folder(checkpoint) and (checkpoint / MANIFEST).is_file():
        for name, digest in read_manifest(checkpoint)["files"].items():
            file = checkpoint / name
            if file.parent == folder and (not file.is_file() or sha256(file) != digest):
                raise CheckpointError(f"{file}: differs from what was saved")
        base = read_manifest(checkpoint)["base"]
        return f"{kind} on {base['source']} (base {base['digest'][:12]})"
    numbers = _numbers(folder / ADAPTER_WEIGHTS)
    named = _json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    return f"{kind}, {numbers:,} numbers, on {named}; it names no digest of its base"


def _kind_of(folder: Path) -> str:
    return f"{kind_of_adapter(folder)} adapter"


def _numbers(file: Path) -> int:
    """How many numbers the tensors of a file hold. Raises `CheckpointError` when it is torn, or
    holds an empty one."""
    if not file.is_file():
        pickles = [found.name for pattern in PICKLES for found in file.parent.glob(pattern)]
        if pickles:
            raise CheckpointError(
                f"{file.parent / pickles[0]}: is a pickle, which can run code when it is read; it "
                "was not. Save it with safe_serialization=True"
            )
        raise CheckpointError(f"{file}: is missing")
    total = 0
    try:
        with safe_open(file, "np") as stored:
            for name in stored.keys():  # noqa: SIM118, it is no dictionary
                elements = 1
                for width in stored.get_slice(name).get_shape():
                    elements *= width
                if elements == 0:
                    raise CheckpointError(f"{file}: {name} is empty")
                total += elements
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: is torn: {error}") from error
    if total == 0:
        raise CheckpointError(f"{file}: holds no tensor")
    return total


def _prepared(folder: Path) -> str:
    manifest = shards.read_manifest(folder)
    for split, about in manifest["splits"].items():
        digests = {shard["file"]: shard["sha256"] for shard in about["shards"]} | about["index"]
        for name, digest in digests.items():
            file = folder / split / name
            if not file.is_file():
                raise DataError(f"{file}: is missing")
            if sha256(file) != digest:
                raise DataError(f"{file}: differs from what was prepared")
    train = manifest["splits"]["train"]
    return (
        f"prepared data, {train['samples']:,} samples to train on "
        f"(data {shards.training_digest(manifest)[:12]})"
    )


def _base(folder: Path) -> str:
    kind = read_config(folder).get("model_type", "model")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BaseModelError(f"{folder}: holds no weights as safetensors")
    numbers = sum(_numbers(file) for file in files)
    return f"base, {kind} of {numbers:,} numbers (base {digest_of(folder)[:12]})"


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: holds no configuration")
    return found


def _is_prepared(path: Path) -> bool:
    return (path / "train").is_dir() and (path / "manifest.json").is_file()


_KINDS: tuple[tuple[Callable[[Path], bool], Callable[[Path], str]], ...] = (
    (lambda path: (path / "adapter").is_dir() or path.name.startswith("step_"), _checkpoint),
    (is_export, _export),
    (lambda path: (path / ADAPTER_CONFIG).is_file(), _adapter),
    (_is_prepared, _prepared),
    (lambda path: (path / "config.json").is_file(), _base),
)


def lines(verdicts: list[Verdict]) -> Iterator[str]:
    """For a person, and how many are bad."""
    yield from (str(verdict) for verdict in verdicts)
    bad = sum(not verdict.whole for verdict in verdicts)
    if bad and len(verdicts) > 1:
        yield f"{bad} of {len(verdicts)} are bad; a run goes on from the newest that is whole"
