"""Checkpoints as folders: finding the newest whole one, verifying, pruning. Imports no torch.

step_000100/adapter/        PEFT's own format; opens with PeftModel.from_pretrained alone
step_000100/trainer_state/  state.safetensors: master/… (float32), and the optimizer's, as exp_avg/…
step_000100/manifest.json   written last: sha256 of all files, what it belongs to, position, scores;
                            and the sha256 of all that
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adapters.base_ref import BaseRef
from recipes.errors import CheckpointError
from recipes.files import sha256, write_whole
from recipes.listing import listed

MANIFEST = "manifest.json"
_SEAL = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a checkpoint belongs to; it goes on with nothing else."""

    base: BaseRef
    recipe_digest: str
    data_digest: str
    dtype: str  # of the base
    labels: tuple[str, ...] = ()
    """Of a classification, in the order of their ids."""
    multi_label: bool = False
    """Whether a text can have several of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where in its run a checkpoint was taken: all that is not a tensor."""

    step: int
    skipped: tuple[int, ...] = ()
    """Batches that were left out, ascending."""
    recent_losses: tuple[float, ...] = ()
    """Of the steps before, by which a spike is told."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """On the held-out rows, if they were measured at this step."""


def newest(checkpoints: Path, on_bad: Callable[[str], None] = lambda why: None) -> Path | None:
    """The newest checkpoint that is complete and unaltered; `on_bad` is told why others are not."""
    for folder in sorted(checkpoints.glob("step_*"), reverse=True):
        try:
            verify(folder)
        except CheckpointError as error:
            if not os.path.lexists(folder):  # the run goes on: there is a newer one by now
                return newest(checkpoints, on_bad)
            on_bad(str(error))
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
        try:
            found = sha256(file)
        except OSError as error:  # it was deleted meanwhile, or the disk is bad
            raise CheckpointError(f"{file}: cannot be read: {error}") from error
        if found != digest:
            raise CheckpointError(f"{file}: differs from what was saved")
    return manifest


def write_manifest(
    folder: Path, origin: Origin, position: Position, *, without: Collection[str] = ()
) -> None:
    """Seal a checkpoint whose other files are all written; some may be left `without` a hash."""
    manifest = {
        **asdict(position),
        **asdict(origin),
        "files": {
            str(file.relative_to(folder)): sha256(file)
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file.name not in without
        },
    }
    (folder / MANIFEST).write_text(_sealed(manifest), encoding="utf-8")


def _sealed(manifest: Mapping[str, Any]) -> str:
    return json.dumps({**manifest, _SEAL: _seal(manifest)}, indent=2)


def _seal(manifest: Mapping[str, Any]) -> str:
    """sha256 of what a manifest says, its seal left out (hex, 64 characters)."""
    said = {key: value for key, value in manifest.items() if key != _SEAL}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def read_origin(folder: Path) -> Origin:
    """What a checkpoint belongs to."""
    manifest = read_manifest(folder)
    return Origin(
        base=BaseRef(**{"parts": {}, **manifest["base"]}),  # an earlier shoal told none
        recipe_digest=manifest["recipe_digest"],
        data_digest=manifest["data_digest"],
        dtype=manifest["dtype"],
        labels=tuple(manifest.get("labels", ())),
        multi_label=bool(manifest.get("multi_label", False)),
    )


def read_position(folder: Path) -> Position:
    """Where a checkpoint was taken."""
    manifest = read_manifest(folder)
    return Position(
        step=int(manifest["step"]),
        skipped=tuple(manifest["skipped"]),
        recent_losses=tuple(manifest["recent_losses"]),
        scores=manifest["scores"],
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; its other files are not looked at.

    Raises `CheckpointError` when it is not what was written.
    """
    file = folder / MANIFEST
    try:
        return parse_manifest(file.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: checkpoint has no readable manifest: {error}") from error


def parse_manifest(text: bytes) -> dict[str, Any]:
    """A manifest from its file's content. Raises `ValueError` when it is not what was written."""
    manifest = json.loads(text)
    if not isinstance(manifest, dict) or _SEAL not in manifest or "files" not in manifest:
        raise ValueError("it is no manifest of a checkpoint")
    if manifest[_SEAL] != _seal(manifest):
        raise ValueError("it differs from what was saved")
    return manifest


def folder_of(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return checkpoints / f"step_{step:06d}"


def adapter_folder(checkpoint: Path) -> Path:
    """The part of a checkpoint that PEFT opens."""
    return checkpoint / "adapter"


def reseal(folder: Path, *, base: BaseRef, recipe_digest: str, data_digest: str) -> None:
    """Let a checkpoint belong to something else, knowingly; its tensors stay as they are."""
    manifest = read_manifest(folder) | {
        "base": base.as_dict(),
        "recipe_digest": recipe_digest,
        "data_digest": data_digest,
    }
    write_whole(folder / MANIFEST, _sealed(manifest))


def predicted_bytes(trained_parameters: int, states_per_parameter: int = 2) -> int:
    """Size of a checkpoint: the adapter, its master and the optimizer's moments, all float32."""
    return 4 * trained_parameters * (2 + states_per_parameter)


def total_bytes(folder: Path) -> int:
    """Size of all files of a checkpoint."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def check_base(folder: Path, base: BaseRef) -> None:
    """Raises `CheckpointError` when a checkpoint was trained on another base, and names the parts
    in which they differ."""
    saved = read_manifest(folder)["base"]
    if saved["digest"] == base.digest:
        return
    parts = saved.get("parts")
    if parts is None:
        raise CheckpointError(
            f"{folder}: was saved by an earlier shoal, which did not look at the tokenizer of "
            f"{saved['source']}: whether {base.source} is the same base cannot be told. If it is, "
            "go on with: shoal resume RUN --fork"
        )
    differ = [part for part, digest in parts.items() if base.parts.get(part) != digest]
    raise CheckpointError(
        f"{folder}: was trained on {saved['source']} ({saved['digest'][:12]}), not on "
        f"{base.source} ({base.digest[:12]}): another {listed(differ)}. Name the same base in "
        "base.source, or bring its files back"
    )


def check_data(folder: Path, digest: str) -> None:
    """Raises `CheckpointError` when a checkpoint was trained on other rows than `digest` is of."""
    saved = read_manifest(folder)["data_digest"]
    if saved != digest:
        raise CheckpointError(
            f"{folder}: was trained on other data: the digest of its training rows is "
            f"{saved[:12]}, that of data.train is now {digest[:12]}. Bring the same files back"
        )


def prune(
    saved: Path, *, keep: int, every: int | None = None, best: int = 0, by: str = "loss"
) -> None:
    """Delete what is not to be kept beside a checkpoint that was just saved and read back, and what
    an interrupted save left aside.

    Later ones were passed over as bad, or the run would not be at this step: they go too.
    """
    checkpoints = saved.parent
    folders = sorted(checkpoints.glob("step_*"))
    past = [folder for folder in folders if folder.name <= saved.name]
    scores = {folder: _score(folder, by) for folder in past} if best else {}
    wanted_not = unwanted(past, scores, keep=keep, every=every, best=best, by=by)
    for old in [*wanted_not, *(folder for folder in folders if folder not in past)]:
        # Out of sight first: a checkpoint that is half deleted is none.
        gone = old.with_name(f".{old.name}.deleted")
        old.rename(gone)
        shutil.rmtree(gone)
    for torn in checkpoints.glob(".step_*"):
        shutil.rmtree(torn, ignore_errors=True)


def unwanted(
    folders: Sequence[Path],
    scores: Mapping[Path, float | None],
    *,
    keep: int,
    every: int | None,
    best: int,
    by: str,
) -> list[Path]:
    """Which of some checkpoints, in the order of their steps, are not to be kept."""
    wanted = set(folders[-keep:])
    if every is not None:
        wanted |= {folder for folder in folders if int(folder.name[5:]) % every == 0}
    measured = [(score, folder) for folder, score in scores.items() if score is not None]
    ranked = sorted(measured, key=lambda pair: pair[0], reverse=by != "loss")
    wanted |= {folder for _, folder in ranked[:best]}
    return [folder for folder in folders if folder not in wanted]


def _score(folder: Path, by: str) -> float | None:
    try:
        return read_position(folder).scores.get(by)
    except CheckpointError:
        return None
