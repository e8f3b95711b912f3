"""`shoal adapters`: what runs have saved and what was exported, by the base it belongs to.

Manifests are read, not the files they name: `shoal verify` does that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from adapters.checkpoint_folder import MANIFEST, parse_manifest
from adapters.exported import ADAPTER_CONFIG, RECIPE, kind_of
from adapters.object_store import ObjectStore
from launcher.plan.report import bytes_text
from recipes.address import is_address, join, last_name, what_is_wrong
from recipes.errors import CheckpointError
from recipes.listing import listed as names_listed

COLUMNS = ("base", "adapter", "step", "kind", "size", "measured")
_CHECKPOINTS = "checkpoints"
_SEAL = re.compile(rf"{_CHECKPOINTS}/step_\d+/{re.escape(MANIFEST)}")
# As a resolved recipe is written: the kind is the first or a later line of its section.
_KIND = re.compile(rb'^adapter:\n(?:  .*\n)*?  kind: "(\w+)"', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One that can be used."""

    base: str
    base_digest: str
    name: str
    """Of its run, or the folder it was exported to."""
    step: int
    kind: str
    bytes: int
    measured: str
    """A score on held-out rows, or the loss it was last trained with."""


@dataclass(slots=True)
class Found:
    """What some places hold."""

    places: list[str] = field(default_factory=list)
    adapters: list[Adapter] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    """Names of those whose manifest cannot be read."""
    without: list[str] = field(default_factory=list)
    """Names of runs that have no checkpoint yet."""


class Place(Protocol):
    """Files below a folder or an address, by names with slashes."""

    def children(self) -> list[str]: ...

    def sizes(self, below: str) -> dict[str, int]: ...

    def get(self, name: str) -> bytes | None: ...


class Folder:
    """As `ObjectStore`, of a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def children(self) -> list[str]:
        return sorted(entry.name for entry in self._path.iterdir() if entry.is_dir())

    def sizes(self, below: str) -> dict[str, int]:
        found = {}
        for file in sorted((self._path / below).rglob("*")):
            with suppress(FileNotFoundError):  # a run may delete old checkpoints meanwhile
                if file.is_file():
                    found[file.relative_to(self._path).as_posix()] = file.stat().st_size
        return found

    def get(self, name: str) -> bytes | None:
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None


def listed(paths: Sequence[str], *, given: bool) -> Found:
    """What folders or addresses hold, or what one run or export is. Those that nobody has `given`
    need not exist.

    Raises `CheckpointError` when one that was given does not exist.
    """
    found = Found(places=list(paths))
    for path in paths:
        if is_address(path):
            _look(_store(path), path, found)
            continue
        folder = Path(path).expanduser()
        if folder.is_dir():
            _look(Folder(folder.resolve()), path, found)
        elif given:
            raise CheckpointError(f"{path}: there is no such folder")
    return found


def _store(address: str) -> ObjectStore:
    wrong = what_is_wrong(address)
    if wrong is not None:
        raise CheckpointError(f"{address}: {wrong}")
    return ObjectStore(address.rstrip("/"), patience_s=0)


def _look(place: Place, path: str, found: Found) -> None:
    if _look_at(place, "", path, found):
        return
    for child in place.children():
        if not child.startswith("."):
            _look_at(place, f"{child}/", join(path, child), found)


def _look_at(place: Place, below: str, path: str, found: Found) -> bool:
    """Whether something that may hold an adapter lies there; it is noted."""
    manifest, recipe = place.get(f"{below}{MANIFEST}"), place.get(f"{below}{RECIPE}")
    if recipe is None:
        return False
    try:
        if manifest is not None:
            found.adapters.extend(_export(place, below, path, manifest, recipe))
        elif (newest := _run(place, below, path, recipe)) is not None:
            found.adapters.append(newest)
        else:
            found.without.append(path)
    except ValueError:
        found.bad.append(path)
    return True


def _export(
    place: Place, below: str, path: str, manifest: bytes, recipe: bytes
) -> Iterator[Adapter]:
    said = parse_manifest(manifest)
    kind = kind_of(said)
    if kind == "adapter":
        sizes = place.sizes(below.rstrip("/"))
        config = place.get(f"{below}{ADAPTER_CONFIG}")
        yield _adapter(said, path, _kind(recipe, config), sum(sizes.values()), {})


def _run(place: Place, below: str, path: str, recipe: bytes) -> Adapter | None:
    """The newest checkpoint of a run that has a manifest."""
    sizes = place.sizes(f"{below}{_CHECKPOINTS}")
    seals = [name for name in sizes if _SEAL.fullmatch(name.removeprefix(below))]
    if not seals:
        return None
    seal = max(seals)
    folder = seal.removesuffix(MANIFEST) + "adapter/"
    size = sum(size for name, size in sizes.items() if name.startswith(folder))
    measured: Mapping[str, Any] = {}
    with suppress(ValueError):
        measured = json.loads(place.get(f"{below}evaluation/after.json") or b"{}")
    config = place.get(f"{folder}{ADAPTER_CONFIG}")
    return _adapter(
        parse_manifest(place.get(seal) or b""), path, _kind(recipe, config), size, measured
    )


def _adapter(
    manifest: Mapping[str, Any], path: str, kind: str, size: int, after: Mapping[str, Any]
) -> Adapter:
    scores = after["scores"] if after.get("step") == manifest["step"] else manifest["scores"]
    return Adapter(
        base=manifest["base"]["source"],
        base_digest=manifest["base"]["digest"],
        name=path,
        step=manifest["step"],
        kind=kind,
        bytes=size,
        measured=_measured(scores, manifest["recent_losses"]),
    )


def _kind(recipe: bytes, config: bytes | None) -> str:
    """As the recipe calls it; PEFT has one name for several of shoal's kinds."""
    match = _KIND.search(recipe)
    if match is not None and match[1] != b"peft":
        return match[1].decode()
    return str(json.loads(config or b"{}").get("peft_type", "unknown")).lower()


def _measured(scores: Mapping[str, float], losses: Sequence[float]) -> str:
    for name in ("accuracy", "loss"):
        if name in scores:
            return f"{name} {scores[name]:.3f}"
    return f"training loss {losses[-1]:.3f}" if losses else ""


def rows(adapters: Sequence[Adapter]) -> list[list[str]]:
    """Rows for a table: those of one base stand together, whatever they call it."""
    first: dict[str, str] = {}
    for one in sorted(adapters, key=lambda one: _short(one.base)):
        first.setdefault(one.base_digest, _short(one.base))
    return [
        [
            f"{_short(one.base)} {one.base_digest[:12]}",
            one.name,
            str(one.step),
            one.kind,
            bytes_text(one.bytes),
            one.measured,
        ]
        for one in sorted(
            adapters, key=lambda one: (first[one.base_digest], one.base_digest, one.name)
        )
    ]


def _short(source: str) -> str:
    """A base without the folders above it; a hub id as it is."""
    return last_name(source) if source.startswith("/") else source


def remarks(found: Found) -> Iterator[str]:
    """What else is to be told."""
    if not found.adapters:
        yield f"There are no adapters in {' and '.join(found.places)}"
    if found.without:
        yield f"Without a checkpoint yet: {names_listed(found.without)}"
    if found.bad:
        yield f"BAD: {names_listed(found.bad)}; what is wrong: shoal verify {found.bad[0]}"
