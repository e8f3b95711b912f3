"""Which base an adapter belongs to: where it lies, and a fingerprint of its files.

Imports no torch, so that a recipe's base can be checked before anything is started.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adapters.base_files import (
    FILES,
    PICKLES,
    SAFETENSORS,
    digest_of_parts,
    digests_of,
    is_pickled,
    weights_of,
)
from adapters.gguf import SUFFIX, converted, gguf_of
from recipes.base import Base
from recipes.errors import BaseModelError
from recipes.listing import listed


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRef:
    """A base named, not copied: a folder or hub id. Digests tell two bases apart; it may move."""

    source: str
    revision: str | None
    digest: str
    parts: Mapping[str, str] = field(default_factory=dict)
    """The same of its configuration, weights and tokenizer, by these names; none in what was saved
    before the tokenizer counted."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def base_ref(source: str, revision: str | None, folder: Path) -> BaseRef:
    """The reference of a base whose files lie in `folder`."""
    is_hub_id = not source.startswith("sample:") and not Path(source).is_absolute()
    place = source if is_hub_id else str(folder)
    parts = digests_of(folder)
    return BaseRef(source=place, revision=revision, digest=digest_of_parts(parts), parts=parts)


def locate(
    base: Base,
    cache: Path,
    *,
    download: bool = True,
    tell: Callable[[str], None] = lambda text: None,
) -> Path:
    """The local folder of a recipe's base, checked to hold a model.

    A hub model is taken from the hub's own cache (HF_HUB_CACHE, HF_HOME) when it lies there, else
    from `cache`/hub, which every node sees; what is missing is downloaded, if it may be. A GGUF
    file is converted once, under the same condition; `tell` is told so.
    Raises `BaseModelError` when there is no such model, it has no weights, or they are pickles and
    the recipe does not allow that.
    """
    source = base.source
    if source.startswith("sample:"):
        name = source.removeprefix("sample:")
        folder = cache / "samples" / name
        if not folder.is_dir():
            raise BaseModelError(
                f"base.source = {source}: the sample is not there yet. "
                f"Get it with: shoal samples {name}"
            )
    elif Path(source).is_absolute():
        folder = _given(Path(source), cache, may_convert=download, tell=tell)
    else:
        folder = _from_hub(base, cache, download=download)
    _check(folder, base)
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


def _given(path: Path, cache: Path, *, may_convert: bool, tell: Callable[[str], None]) -> Path:
    gguf = gguf_of(path)
    if gguf is not None:
        return converted(gguf, cache, may_convert=may_convert, tell=tell)
    if not path.is_dir():
        what = "file" if path.suffix == SUFFIX else "folder"
        raise BaseModelError(f"base.source = {path}: there is no such {what}.{_near(path)}")
    return path


def _near(folder: Path) -> str:
    parent = folder.parent
    siblings = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    near = difflib.get_close_matches(folder.name, siblings, n=1)
    return f" Did you mean {parent / near[0]}?" if near else ""


def _from_hub(base: Base, cache: Path, *, download: bool) -> Path:
    """Pickles are fetched only where there is nothing else, and they are allowed."""
    folder = _snapshot(base, cache, FILES, download=download)
    if base.allow_pickle and not weights_of(folder):
        folder = _snapshot(base, cache, (*FILES, PICKLES), download=download)
    return folder


def _snapshot(base: Base, cache: Path, patterns: Sequence[str], *, download: bool) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    source = base.source
    own = Path(constants.HF_HUB_CACHE)
    is_there = (own / f"models--{source.replace('/', '--')}").is_dir()
    try:
        return Path(
            snapshot_download(
                source,
                revision=base.revision,
                cache_dir=own if is_there else cache / "hub",
                allow_patterns=list(patterns),
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


def _check(folder: Path, base: Base) -> None:
    if not (folder / "config.json").is_file():
        raise BaseModelError(f"{folder}: holds no model in Hugging Face format (no config.json)")
    read_config(folder)
    if not weights_of(folder):
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8])
        of_hub = not base.source.startswith("sample:") and not Path(base.source).is_absolute()
        hint = ". Pickles are fetched from the hub only with base.allow_pickle: true"
        raise BaseModelError(
            f"{folder}: holds no weights ({SAFETENSORS}); found: {found}{hint if of_hub else ''}"
        )
    if is_pickled(folder) and not base.allow_pickle:
        raise BaseModelError(
            f"{folder}: its weights are pickles ({weights_of(folder)[0].name}), which can run any "
            "program when they are read. Take a base with safetensors, or save this one with "
            "transformers' save_pretrained where it may run what it likes. base.allow_pickle: true "
            "reads tensors and refuses all else, a guard that has had holes: set it only if you "
            "trust who made them"
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
