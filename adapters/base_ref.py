"""Which base an adapter belongs to: where it lies, and a fingerprint of its files.

Imports no torch, so that a recipe's base can be checked before anything is started.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recipes.errors import BaseModelError
from recipes.files import sha256
from recipes.listing import listed

_OLD_WEIGHTS = "pytorch_model*.bin"
_WEIGHTS = ("*.safetensors", _OLD_WEIGHTS)
_FILES = ("*.json", "*.model", "*.txt", "*.jinja", *_WEIGHTS)
_WHOLE_BYTES = 64 * 2**20
_PIECE_BYTES = 2**20
_PIECES = 32
_TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "chat_template*",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRef:
    """A base named, not copied: a folder or hub id. Digests tell two bases apart; it may move."""

    source: str
    revision: str | None
    digest: str
    """Of its configuration and weights."""
    tokenizer: str | None = None
    """Digest of its tokenizer's files; None in what was saved before it was noted."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def base_ref(source: str, revision: str | None, folder: Path) -> BaseRef:
    """The reference of a base whose files lie in `folder`."""
    is_hub_id = not source.startswith("sample:") and not Path(source).is_absolute()
    place = source if is_hub_id else str(folder)
    return BaseRef(
        source=place,
        revision=revision,
        digest=digest_of(folder),
        tokenizer=tokenizer_digest(folder),
    )


def locate(source: str, revision: str | None, cache: Path, *, download: bool = True) -> Path:
    """The local folder of `base.source`, checked to hold a model.

    A hub model is taken from the hub's own cache (HF_HUB_CACHE, HF_HOME) when it lies there, else
    from `cache`/hub, which every node sees; what is missing is downloaded, if it may be.
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
        folder = _from_hub(source, revision, cache, download=download)
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


def files_of(folder: Path) -> dict[str, int]:
    """The files of a base that are used, with their sizes (bytes)."""
    found = {file for pattern in _FILES for file in folder.glob(pattern)}
    return {file.name: file.stat().st_size for file in sorted(found)}


def _from_hub(source: str, revision: str | None, cache: Path, *, download: bool) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    own = Path(constants.HF_HUB_CACHE)
    is_there = (own / f"models--{source.replace('/', '--')}").is_dir()
    try:
        return Path(
            snapshot_download(
                source,
                revision=revision,
                cache_dir=own if is_there else cache / "hub",
                allow_patterns=[pattern for pattern in _FILES if pattern != _OLD_WEIGHTS],
                local_files_only=not download,
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
            f"{str(error).splitlines()[0]} Where nodes do not reach the hub, give `shoal prepare` "
            "with cluster.kind=local on a machine that does, with the same storage.cache"
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
    absent = sorted(name for name in _promised(folder) if not (folder / name).is_file())
    if absent:
        raise BaseModelError(
            f"{folder}: lacks weights that its index names: {listed(absent)}. A download or copy "
            "was cut off; repeat it"
        )


def _promised(folder: Path) -> set[str]:
    """The files over which an index says that the weights are spread."""
    promised: set[str] = set()
    for file in folder.glob("*.index.json"):
        with suppress(OSError, ValueError, KeyError, AttributeError):  # no index of weights
            promised |= set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values())
    return promised


def _weights(folder: Path) -> Iterator[Path]:
    for pattern in _WEIGHTS:
        yield from sorted(folder.glob(pattern))


def digest_of(folder: Path) -> str:
    """sha256 over config and weights. Of a file above 64 MiB, its size and 32 pieces of 1 MiB:
    the whole of a 140 GB base would take minutes at every start."""
    total = hashlib.sha256()
    for file in [folder / "config.json", *_weights(folder)]:
        total.update(f"{file.name}:{file.stat().st_size}:".encode())
        for piece in _pieces(file):
            total.update(piece)
    return total.hexdigest()


def tokenizer_digest(folder: Path) -> str:
    """sha256 over the files of a base's tokenizer, its chat template among them."""
    files = {file for pattern in _TOKENIZER_FILES for file in folder.glob(pattern)}
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(f"{file.name}:{sha256(file)}".encode())
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
