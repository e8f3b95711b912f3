"""Preparing a recipe's data: from its sources to a folder of shards, once for each key."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from adapters.tokenizer import has_chat_template
from launcher.prepare import cleaned, counted, judged, near, packed, tokenized
from launcher.prepare.cleaning import boilerplate_step
from launcher.prepare.context import Context
from launcher.prepare.digests import Digests, hash_here
from launcher.prepare.failures import Failures
from launcher.prepare.found import HASHED_HERE_BYTES, MANIFEST, Prepared, prepared_in
from launcher.prepare.key import prepared_key
from launcher.prepare.manifest import check_usable, manifest_of
from launcher.prepare.mixture import Copies, takes
from launcher.prepare.recognised import recognised
from launcher.prepare.rendering.written import check_template
from launcher.prepare.rows import PROMPTS_KEPT
from launcher.prepare.similarity import num_bands
from launcher.prepare.sources import Source, Unit, digest_of, find_sources
from launcher.prepare.stage import Report, Stage, run_on_ray
from launcher.prepare.units import units
from recipes.data.shapes import CHATS
from recipes.errors import DataError, StorageError
from recipes.files import write_whole
from recipes.recipe import Recipe
from trainer.split import write_index


class Progress(Protocol):
    """Told how far a phase is."""

    def __call__(self, name: str, done: int, total: int, /, *, rows: int = 0) -> None:
        """Name of the phase, units done, units in all, and rows in what is done where that is
        known."""


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
    known = [digests.known(source) for source in sources] if verify else []
    entries = digests.of(sources, partial(_hash_all, progress=progress), verify=verify)
    progress("reading sources", 1, 1)
    for entry, before in zip(entries, known, strict=False):
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
            manifest = _make(aside, recipe, base_folder, sources, entries, progress)
            os.replace(aside, folder)
        except DataError:
            # The same sources would end the same way.
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


def _hash_all(sources: Sequence[Source], *, progress: Progress) -> list[str]:
    if sum(source.bytes for source in sources) <= HASHED_HERE_BYTES:
        return hash_here(sources)
    items = [_Hashing(number=number, source=source) for number, source in enumerate(sources)]
    nowhere = Context(recipe=None, tokenizer_folder="", work=Path())  # type: ignore[arg-type]
    return run_on_ray(_hash_one, items, nowhere, partial(progress, "hashing sources"))


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
    needs_template = recipe.task == "causal_lm" and (data.prompt or data.format in chats)
    if needs_template and not has_template:
        what = "data.prompt" if data.prompt else f"data.format = {data.format}"
        raise DataError(
            f"{what}: the tokenizer of {folder} has no chat template. Use a base that was made for "
            "chat, give data.chat_template, or data.format=text"
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
    parts = units(sources, recipe.data.unit_mb * 2**20)
    context = Context(recipe=recipe, tokenizer_folder=str(base_folder), work=aside / "work")
    stages = _Stages(recipe, context, progress)
    stages.count_lines(parts)
    first = stages.clean(parts)
    stages.judge(first)
    if recipe.data.deduplicate == "near":
        stages.find_near(first)
    labels = _labels(recipe, first)
    lines = _first_lines(parts, first)
    second = stages.tokenize(parts, first, lines, labels)
    shards = stages.pack(parts, first)
    numbers = {_place(source): number for number, source in enumerate(sources)}
    places = [
        {"file": numbers[_place(unit.source)], "first_line": line, "source": _source(recipe, unit)}
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
    shutil.rmtree(aside / "work")
    write_whole(aside / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=2))
    return manifest


def _place(source: Source) -> tuple[str, int, str]:
    return source.split, source.entry, source.address


def _source(recipe: Recipe, unit: Unit) -> int:
    """The number of a unit's source: those of data.train, then those of data.held_out."""
    before = len(recipe.data.train) if unit.source.split == "held_out" else 0
    return before + unit.source.entry


def _first_lines(parts: Sequence[Unit], reports: Sequence[Report]) -> list[int]:
    """Lines of its file before each unit."""
    before: Counter[str] = Counter()
    found = []
    for unit, report in zip(parts, reports, strict=True):
        found.append(before[unit.source.address])
        before[unit.source.address] += report["lines"]
    return found


def _labels(recipe: Recipe, reports: Sequence[Report]) -> list[str]:
    """Labels in the order of their ids; none for causal models."""
    if recipe.task != "sequence_classification":
        return []
    found = sorted({label for report in reports for label in report["labels"]})
    if recipe.data.labels:
        return list(recipe.data.labels)
    if len(found) == 1:
        raise DataError(f"data.columns.label: every row has the label {found[0]}")
    if len(found) >= cleaned.MOST_LABELS:
        raise DataError(
            f"data.columns.label: has {len(found):,} values and more; is it the label? "
            "Name the column with data.columns={label: NAME}"
        )
    return found


@dataclass(frozen=True, slots=True)
class _Stages:
    """The stages, in order; each takes what the ones before it reported."""

    recipe: Recipe
    context: Context
    progress: Progress

    def count_lines(self, parts: Sequence[Unit]) -> None:
        if boilerplate_step(self.recipe.data.clean) is None:
            return
        stage = Stage(name=counted.FOLDER, function=counted.count_unit)
        self._run("counting lines", stage, parts)
        counted.leave_frequent_lines(self.context, len(parts))

    def clean(self, parts: Sequence[Unit]) -> list[Report]:
        failures = Failures(self.recipe.data.max_failed)
        stage = Stage(name=cleaned.FOLDER, function=cleaned.clean_unit)
        reports = self._run(
            "cleaning", stage, parts, look=failures.add, rows=lambda report: int(report["rows"])
        )
        failures.check()
        return reports

    def judge(self, first: Sequence[Report]) -> None:
        samples = sum(report["samples"] for report in first)
        stage = Stage(name=judged.FOLDER, function=judged.judge_range)
        self._run("finding duplicates", stage, judged.ranges(samples, len(first)), rows=_samples)

    def find_near(self, first: Sequence[Report]) -> None:
        items = [
            near.Signing(number=report["unit"], num_samples=report["samples"]) for report in first
        ]
        signing = Stage(name=near.SIGNED, function=near.sign_unit)
        self._run("signing", signing, items, rows=_samples)
        bands = num_bands(near.likeness(self.recipe.data))
        parts = judged.ranges(bands * sum(report["samples"] for report in first), len(first))
        joining = Stage(name=near.JOINED, function=near.join_range)
        self._run("finding near duplicates", joining, parts)
        near.leave_verdicts(self.context, len(parts), len(first))

    def tokenize(
        self,
        parts: Sequence[Unit],
        first: Sequence[Report],
        lines: Sequence[int],
        labels: Sequence[str],
    ) -> list[Report]:
        groups = {
            unit: self._groups(block, parts, first)
            for block in tokenized.blocks(len(parts))
            for unit in block
        }
        copies = self._copies(parts, first)
        items = [
            tokenized.Tokenizing(
                number=unit.number,
                num_samples=report["samples"],
                first_line=line,
                file=unit.source.address,
                source=_source(self.recipe, unit),
                groups=groups[unit.number],
                copies=copies[unit.number],
                labels=tuple(labels),
            )
            for unit, report, line in zip(parts, first, lines, strict=True)
        ]
        stage = Stage(name=tokenized.FOLDER, function=tokenized.tokenize_unit)
        return self._run(
            "tokenizing", stage, items, rows=lambda report: int(first[report["unit"]]["samples"])
        )

    def _groups(
        self, block: Sequence[int], parts: Sequence[Unit], first: Sequence[Report]
    ) -> dict[str, int]:
        sizes = [
            (first[unit]["text_bytes"], parts[unit].source.split == "held_out") for unit in block
        ]
        return tokenized.groups_of(sizes, self.recipe.data, self.recipe.data.unit_mb * 2**20)

    def _copies(self, parts: Sequence[Unit], first: Sequence[Report]) -> list[Copies]:
        """How often the samples of each unit are taken."""
        trained = judged.num_trained(
            self.context,
            [report["samples"] for report in first],
            near.trained_verdicts(self.context),
        )
        weights = [source.weight for source in self.recipe.data.train]
        sources = [_source(self.recipe, unit) for unit in parts]
        have = [0] * (len(weights) + len(self.recipe.data.held_out))
        firsts = []
        for source, count in zip(sources, trained, strict=True):
            firsts.append(have[source])
            have[source] += int(count)
        wanted = takes(have[: len(weights)], weights, self.recipe.data.mix)
        wanted += have[len(weights) :]
        return [
            Copies(have=have[source], take=wanted[source], first=rank)
            for source, rank in zip(sources, firsts, strict=True)
        ]

    def pack(self, parts: Sequence[Unit], first: Sequence[Report]) -> dict[str, list[Report]]:
        found = {}
        for split in tokenized.SPLITS:
            groups = [
                (tuple(block), group)
                for block in tokenized.blocks(len(first))
                for group in range(self._groups(block, parts, first)[split])
            ]
            items = [
                packed.Packing(number=number, split=split, units=block, group=group)
                for number, (block, group) in enumerate(groups)
            ]
            stage = Stage(name=f"{packed.FOLDER}_{split}", function=packed.pack_group)
            name = f"writing {split.replace('_', '-')} shards"
            found[split] = self._run(
                name, stage, items, rows=lambda report: _samples(report["shard"] or {"samples": 0})
            )
        return found

    def _run(
        self,
        name: str,
        stage: Stage,
        items: Sequence[Any],
        look: Callable[[Report], None] = lambda report: None,
        rows: Callable[[Report], int] = lambda report: 0,
    ) -> list[Report]:
        seen = 0

        def looked_at(report: Report) -> None:
            nonlocal seen
            look(report)
            seen += rows(report)

        def told(done: int, total: int) -> None:
            self.progress(name, done, total, rows=seen)

        return run_on_ray(stage, items, self.context, told, look=looked_at)


def _samples(report: Report) -> int:
    return int(report["samples"])
