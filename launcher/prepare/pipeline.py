"""Preparing a recipe's data: from its sources to a folder of shards, once for each key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from adapters.tokenizer import chat_templates, names_end, read_template
from launcher.access import Access
from launcher.prepare import layout
from launcher.prepare.base_tokenizer import BaseTokenizer
from launcher.prepare.examples import REJECTED, examples_of
from launcher.prepare.failures import UselessRowsError
from launcher.prepare.found import HASHED_HERE_BYTES, MANIFEST, Prepared, prepared_in
from launcher.prepare.intact import damage_of, put_in_place, remove_unfinished
from launcher.prepare.key import prepared_key
from launcher.prepare.manifest import check_usable, manifest_of
from launcher.prepare.rendering.written import check_template
from launcher.prepare.sources.digests import Digests, hash_here
from launcher.prepare.sources.recognised import recognised
from launcher.prepare.sources.source import Source, digest_of, find_sources
from launcher.prepare.sources.units import unit_bytes, units
from launcher.prepare.stages import tokenized
from launcher.prepare.stages.context import Context
from launcher.prepare.stages.sequence import Progress, Stages, first_lines, labels_of, source_number
from launcher.prepare.stages.stage import run_on_ray
from recipes.data.shapes import CHATS
from recipes.data.steps import Tokens
from recipes.errors import DataError, StorageError
from recipes.files import write_whole
from recipes.recipe import Recipe
from trainer.shards import read_manifest
from trainer.split import write_index

_LOOK_AGAIN_S = 1.0

_NO_END = (
    "The base's tokenizer names no end token (eos_token): texts are learnt without an end, and a "
    "model stops by itself only where its chat template ends a turn. Name one of its tokens in the "
    "base's tokenizer_config.json"
)


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
    digests = Digests(folder=layout.digests(cache))
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
    folder, aside = layout.finished(cache) / key, layout.begun(cache) / key
    # Runs of a sweep begin at the same moment, and need the same.
    with _made_or_alone(folder, layout.lock_file(cache, key), recipe, progress) as found:
        if found is not None:
            return found
        if (folder / MANIFEST).is_file():
            tell(f"{damage_of(folder, read_manifest(folder))}: all of it is prepared again")
        given = read_template(recipe.data.chat_template)
        templates = [given] if given is not None else chat_templates(base_folder)
        _check_templates(recipe, base_folder, templates)
        if recipe.task == "causal_lm" and not names_end(base_folder):
            tell(_NO_END)
        try:
            (aside / "work").mkdir(parents=True, exist_ok=True)
            folder.parent.mkdir(exist_ok=True)
            for line in recognised(recipe, sources, templates):
                tell(line)
            if (aside / MANIFEST).is_file():  # which is written when all else is
                manifest = read_manifest(aside)
            else:
                manifest = _make(aside, recipe, base_folder, given, sources, entries, progress)
            remove_unfinished(aside)
            put_in_place(aside, folder)
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
    nowhere = Context(recipe=recipe, work=Path())
    access = _access(recipe, sources)
    told = partial(progress, "hashing sources")
    return run_on_ray(_hash_one, items, nowhere, told, access=access)


def _access(recipe: Recipe, sources: Sequence[Source]) -> Access:
    return Access.of(recipe, [source.address for source in sources])


def _hash_one(item: _Hashing, context: Context) -> str:
    return digest_of(item.source)


@contextmanager
def _made_or_alone(
    folder: Path, lock_file: Path, recipe: Recipe, progress: Progress
) -> Iterator[Prepared | None]:
    """What is prepared in a folder; None when nothing is, and nobody else makes it meanwhile. Waits
    for whoever does, until it is made or its process has ended, however that ends."""
    lock = FileLock(lock_file)
    told = False
    try:
        try:
            lock_file.parent.mkdir(parents=True, exist_ok=True)
            while (found := prepared_in(folder, recipe)) is None and not lock.is_locked:
                with suppress(Timeout):
                    lock.acquire(timeout=_LOOK_AGAIN_S)
                    continue  # to look once more: it may have been made before the lock was free
                if not told:
                    told = True
                    progress("waiting for another run, which prepares the same data", 0, 0)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be written: {error}") from error
        yield found
    finally:
        lock.release()


def _check_templates(recipe: Recipe, folder: Path, templates: Sequence[str]) -> None:
    data = recipe.data
    if data.chat_template is not None:
        check_template(data.chat_template)
    chats = (*CHATS, "text_label", "text_labels", "image_text")
    needs = [f"{path} = {shape}" for path, shape in data.shapes() if shape in chats]
    if data.prompt:
        needs.insert(0, "data.prompt")
    if recipe.task == "causal_lm" and needs and not templates:
        raise DataError(
            f"{needs[0]}: the tokenizer of {folder} has no chat template. Use a base that was made "
            "for chat, give data.chat_template, or data.format=text"
        )


def _make(
    aside: Path,
    recipe: Recipe,
    base_folder: Path,
    template: str | None,
    sources: Sequence[Source],
    entries: Sequence[Mapping[str, Any]],
    progress: Progress,
) -> dict[str, Any]:
    """Fill a folder with prepared data, chats as `template` or else the base's own writes them: its
    manifest."""
    context = Context(recipe=recipe, work=aside / "work")
    tokenizer = BaseTokenizer(context.tokenizer, recipe, base_folder, template)
    try:
        return _fill(aside, context, base_folder, tokenizer, sources, entries, progress)
    except UselessRowsError:
        tokenizer.wait()  # or it would write into a folder that is removed
        raise


def _check_same(
    recipe: Recipe, aside: Path, base_folder: Path, entries: Sequence[Mapping[str, Any]]
) -> None:
    """Raises `DataError` when a file of a step or of the tokenizer is no longer that of the key;
    sources are looked at when they are read."""
    if prepared_key(recipe, base_folder, entries) != aside.name:
        shutil.rmtree(aside, ignore_errors=True)
        raise DataError(
            "data.clean: a step's file, or the base's tokenizer, was changed while rows were "
            "cleaned, so they may be of two versions. Prepare again"
        )


def _fill(
    aside: Path,
    context: Context,
    base_folder: Path,
    tokenizer: BaseTokenizer,
    sources: Sequence[Source],
    entries: Sequence[Mapping[str, Any]],
    progress: Progress,
) -> dict[str, Any]:
    recipe = context.recipe
    size = unit_bytes(recipe.data, sources)
    parts = units(sources, size)
    if any(isinstance(step, Tokens) for step in recipe.data.clean):
        tokenizer.land()

    def told(name: str, done: int, total: int, /, *, rows: int = 0) -> None:
        tokenizer.look()  # or one that cannot be read would be told after all is cleaned
        progress(name, done, total, rows=rows)

    stages = Stages(
        recipe, context, told, _access(recipe, sources), tokenized.UNITS_PER_SHARD * size
    )
    stages.count_lines(parts)
    first = stages.clean(parts)
    stages.judge(first)
    if recipe.data.deduplicate == "near":
        stages.find_near(first)
    labels = labels_of(recipe, first)
    lines = first_lines(parts, first)
    tokenizer.land()
    _check_same(recipe, aside, base_folder, entries)
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
    examples = examples_of(aside / REJECTED, first, second)
    manifest = manifest_of(
        recipe, aside.name, base_folder, entries, places, first, second, shards, labels, examples
    )
    check_usable(recipe, manifest)
    for name, split in manifest["splits"].items():
        (aside / name).mkdir(exist_ok=True)
        split["index"] = write_index(aside / name, split["shards"])
    prompts = [prompt for report in second for prompt in report["prompts"]]
    lines_of_prompts = [json.dumps(p, ensure_ascii=False) + "\n" for p in prompts]
    write_whole(aside / "prompts.jsonl", "".join(lines_of_prompts))
    write_whole(aside / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=2))
    return manifest
