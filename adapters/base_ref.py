"""Which base an adapter belongs to: where it lies, and a fingerprint of its files.

Imports no torch, so that a recipe's base can be checked before anything is started.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recipes.errors import BaseModelError

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_WHOLE_BYTES = 64 * 2**20
_PIECE_BYTES = 2**20
_PIECES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRef:
    """A base named, not copied: a folder or hub id. `digest` tells two bases apart; it may move."""

    source: str
    revision: str | None
    digest: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def base_ref(source: str, revision: str | None, folder: Path) -> BaseRef:
    """The reference of a base whose files lie in `folder`."""
    is_hub_id = not source.startswith("sample:") and not Path(source).is_absolute()
    place = source if is_hub_id else str(folder)
    return BaseRef(source=place, revision=revision, digest=_digest(folder))


def locate(source: str, revision: str | None, cache: Path, *, download: bool = True) -> Path:
    """The local folder of `base.source`, checked to hold a model.

    A hub model is taken from the hub's own local cache, or downloaded into it first, if it may be.
    Raises `BaseModelError` when there is no such model or it has no weights.
    """
    if source.startswith("sample:"):
        name = source.removeprefix("sample:")
        folder = cache / "samples" / name
        if not folder.is_dir():
            raise BaseModelError(
                f"base.source = {source}: the sample is not there yet. "
                f"Get it with: shoal samples {name}"
            )
    elif Path(source).is_absolute():
        folder = Path(source)
        if not folder.is_dir():
            raise BaseModelError(f"base.source = {source}: there is no such folder.{_near(folder)}")
    else:
        folder = _from_hub(source, revision, download=download)
    _check(folder)
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The model's config.json."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise BaseModelError(f"{folder}/config.json cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise BaseModelError(f"{folder}/config.json holds no model configuration")
    return config


def _near(folder: Path) -> str:
    parent = folder.parent
    siblings = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    near = difflib.get_close_matches(folder.name, siblings, n=1)
    return f" Did you mean {parent / near[0]}?" if near else ""


def _from_hub(source: str, revision: str | None, *, download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(
            snapshot_download(
                source, revision=revision, allow_patterns=patterns, local_files_only=not download
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if not download:
            raise BaseModelError(
                f"base.source = {source}: is no folder, and has not been downloaded to this "
                "machine. `shoal prepare` with the recipe downloads it"
            ) from error
        raise BaseModelError(
            f"base.source = {source}: is no folder, and could not be had from the hub: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _check(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise BaseModelError(f"{folder}: holds no model in Hugging Face format (no config.json)")
    read_config(folder)
    if not list(_weights(folder)):
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8])
        raise BaseModelError(
            f"{folder}: holds no weights ({' or '.join(_WEIGHTS)}); found: {found}"
        )


def _weights(folder: Path) -> Iterator[Path]:
    for pattern in _WEIGHTS:
        yield from sorted(folder.glob(pattern))


def _digest(folder: Path) -> str:
    """sha256 over config and weights. Of a file above 64 MiB, its size and 32 pieces of 1 MiB:
    the whole of a 140 GB base would take minutes at every start."""
    total = hashlib.sha256()
    for file in [folder / "config.json", *_weights(folder)]:
        total.update(f"{file.name}:{file.stat().st_size}:".encode())
        for piece in _pieces(file):
            total.update(piece)
    return total.hexdigest()


def _pieces(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= _WHOLE_BYTES:
            yield stream.read()
            return
        for number in range(_PIECES):
            stream.seek(number * (size - _PIECE_BYTES) // (_PIECES - 1))
            yield stream.read(_PIECE_BYTES)
