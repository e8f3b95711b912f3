"""Preparing a recipe's data: from its sources to a folder of shards, once for each key."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from adapters.tokenizer import has_chat_template
from launcher.access import Access
from launcher.prepare import tokenized
from launcher.prepare.context import Context
from launcher.prepare.digests import Digests, hash_here
from launcher.prepare.failures import UselessRowsError
from launcher.prepare.found import HASHED_HERE_BYTES, MANIFEST, Prepared, prepared_in
from launcher.prepare.key import prepared_key
from launcher.prepare.manifest import check_usable, manifest_of
from launcher.prepare.recognised import recognised
from launcher.prepare.rendering.written import check_template
from launcher.prepare.rows import PROMPTS_KEPT
from launcher.prepare.sources import Source, digest_of, find_sources
from launcher.prepare.stage import run_on_ray
from launcher.prepare.stages import Progress, Stages, first_lines, labels_of, source_number
from launcher.prepare.units import unit_bytes, units
from recipes.data.shapes import CHATS
from recipes.errors import DataError, StorageError
from recipes.files import write_whole
from recipes.recipe import Recipe
from trainer.shards import read_manifest
from trainer.split import write_index

_LOOK_AGAIN_S = 1.0


def prepare(
    recipe: Recipe,
    *,
    base_folder: Path,
    cache: Path,
    progress: Progress,
    verify: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Prepared:
    """The prepared data of a recipe in `cache/prepared/<key>`, made on the connected Ray if needed.

    Sources that look as they did when they were last read are not read again to find the key, but
    with `verify`. What was interrupted goes on where it was. `tell` hears what a person should know
    of the sources. Raises `DataError` when a source cannot be read or no row can be used.
    """
    sources = find_sources(recipe.data, cache)
    progress("reading sources", 0, 0)
    digests = Digests(folder=cache / "digests")
    known = digests.look(sources)
    entries = digests.of(
        sources,
        [None] * len(sources) if verify else known,
        partial(_hash_all, recipe=recipe, progress=progress),
    )
    progress("reading sources", 1, 1)
    for entry, before in zip(entries, known, strict=True):
        if before not in (None, entry["sha256"]):
            tell(
                f"{entry['path']}: has other bytes than when it was last read, though neither its "
                "size nor its time has changed"
            )
    key = prepared_key(recipe, base_folder, entries)
    folder, aside = cache / "prepared" / key, cache / "preparing" / key
    # Runs of a sweep begin at the same moment, and need the same.
    with _alone(folder, progress):
        if (found := prepared_in(folder, recipe)) is not None:
            return found
        _check_tokenizer(recipe, base_folder)
        try:
            (aside / "work").mkdir(parents=True, exist_ok=True)
            folder.parent.mkdir(exist_ok=True)
            for line in recognised(recipe, sources):
                tell(line)
            if (aside / MANIFEST).is_file():  # which is written when all else is
                manifest = read_manifest(aside)
            else:
                manifest = _make(aside, recipe, base_folder, sources, entries, progress)
            shutil.rmtree(aside / "work", ignore_errors=True)
            os.replace(aside, folder)
        except UselessRowsError:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"{aside}: cannot be written: {error}") from error
    return Prepared(folder=folder, manifest=manifest, fresh=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hashing:
    number: int
    source: Source


def _hash_all(sources: Sequence[Source], *, recipe: Recipe, progress: Progress) -> list[str]:
    if sum(source.bytes for source in sources) <= HASHED_HERE_BYTES:
        return hash_here(sources)
    items = [_Hashing(number=number, source=source) for number, source in enumerate(sources)]
    nowhere = Context(recipe=recipe, tokenizer_folder="", work=Path())
    access = _access(recipe, sources)
    told = partial(progress, "hashing sources")
    return run_on_ray(_hash_one, items, nowhere, told, access=access)


def _access(recipe: Recipe, sources: Sequence[Source]) -> Access:
    return Access.of(recipe, [source.address for source in sources])


def _hash_one(item: _Hashing, context: Context) -> str:
    return digest_of(item.source)


@contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    """Nobody else makes this folder meanwhile. Waits for whoever does, until it is made or its
    process has ended, however that ends."""
    locks = folder.parent.with_name("locks")
    lock = FileLock(locks / f"{folder.name}.lock")
    told = False
    try:
        locks.mkdir(parents=True, exist_ok=True)
        while not (folder / MANIFEST).is_file():
            with suppress(Timeout):
                lock.acquire(timeout=_LOOK_AGAIN_S)
                break
            if not told:
                told = True
                progress("waiting for another run, which prepares the same data", 0, 0)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error}") from error
    try:
        yield
    finally:
        lock.release()


def _check_tokenizer(recipe: Recipe, folder: Path) -> None:
    data = recipe.data
    if data.chat_template is not None:
        check_template(data.chat_template)
    has_template = data.chat_template is not None or has_chat_template(folder)
    chats = (*CHATS, "text_label", "text_labels", "image_text")
    needs = [f"{path} = {shape}" for path, shape in data.shapes() if shape in chats]
    if data.prompt:
        needs.insert(0, "data.prompt")
    if recipe.task == "causal_lm" and needs and not has_template:
        raise DataError(
            f"{needs[0]}: the tokenizer of {folder} has no chat template. Use a base that was made "
            "for chat, give data.chat_template, or data.format=text"
        )


def _make(
    aside: Path,
    recipe: Recipe,
    base_folder: Path,
    sources: Sequence[Source],
    entries: Sequence[Mapping[str, Any]],
    progress: Progress,
) -> dict[str, Any]:
    """Fill a folder with prepared data: its manifest."""
    size = unit_bytes(recipe.data, sources)
    parts = units(sources, size)
    context = Context(recipe=recipe, tokenizer_folder=str(base_folder), work=aside / "work")
    stages = Stages(
        recipe, context, progress, _access(recipe, sources), tokenized.UNITS_PER_SHARD * size
    )
    stages.count_lines(parts)
    first = stages.clean(parts)
    stages.judge(first)
    if recipe.data.deduplicate == "near":
        stages.find_near(first)
    labels = labels_of(recipe, first)
    lines = first_lines(parts, first)
    second = stages.tokenize(parts, first, lines, labels)
    shards = stages.pack(parts, first)
    numbers = {source.place: number for number, source in enumerate(sources)}
    places = [
        {
            "file": numbers[unit.source.place],
            "first_line": line,
            "source": source_number(recipe, unit),
        }
        for unit, line in zip(parts, lines, strict=True)
    ]
    manifest = manifest_of(
        recipe, aside.name, base_folder, entries, places, first, second, shards, labels
    )
    check_usable(recipe, manifest)
    for name, split in manifest["splits"].items():
        (aside / name).mkdir(exist_ok=True)
        split["index"] = write_index(aside / name, split["shards"])
    prompts = [prompt for report in second for prompt in report["prompts"]]
    lines_of_prompts = [json.dumps(p, ensure_ascii=False) + "\n" for p in prompts[:PROMPTS_KEPT]]
    write_whole(aside / "prompts.jsonl", "".join(lines_of_prompts))
    write_whole(aside / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=2))
    return manifest
