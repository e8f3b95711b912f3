"""The stages of preparing, one after another: what each is given of those before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from launcher.access import Access
from launcher.prepare.cleaning import boilerplate_step
from launcher.prepare.failures import Failures, UselessRowsError
from launcher.prepare.sources.source import Unit
from launcher.prepare.stages import cleaned, counted, judged, near, packed, tokenized
from launcher.prepare.stages.context import Context
from launcher.prepare.stages.mixture import Copies, check_takes, names, takes
from launcher.prepare.stages.rows import PROMPTS_KEPT
from launcher.prepare.stages.similarity import num_bands
from launcher.prepare.stages.stage import Report, Stage, run_on_ray
from recipes.recipe import Recipe
from trainer.split import SPLITS


class Progress(Protocol):
    """Told how far a phase is."""

    def __call__(self, name: str, done: int, total: int, /, *, rows: int = 0) -> None:
        """Name of the phase, units done, units in all, and rows in what is done where that is
        known."""


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages, in order; each takes what the ones before it reported."""

    recipe: Recipe
    context: Context
    progress: Progress
    access: Access
    shard_bytes: int
    """Bytes of samples that a shard is made of, about."""

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
                source=source_number(self.recipe, unit),
                groups=groups[unit.number],
                copies=copies[unit.number],
                labels=tuple(labels),
            )
            for unit, report, line in zip(parts, first, lines, strict=True)
        ]
        stage = Stage(name=tokenized.FOLDER, function=tokenized.tokenize_unit)
        prompts = 0

        def drop_prompts(report: Report) -> None:
            """All but the first ones: chats of every unit would fill the driver's memory."""
            nonlocal prompts
            del report["prompts"][PROMPTS_KEPT - prompts :]
            prompts += len(report["prompts"])

        return self._run(
            "tokenizing",
            stage,
            items,
            look=drop_prompts,
            rows=lambda report: int(first[report["unit"]]["samples"]),
        )

    def _groups(
        self, block: Sequence[int], parts: Sequence[Unit], first: Sequence[Report]
    ) -> dict[str, int]:
        sizes = [
            (first[unit]["text_bytes"], parts[unit].source.split == "held_out") for unit in block
        ]
        return tokenized.groups_of(sizes, self.recipe.data, self.shard_bytes)

    def _copies(self, parts: Sequence[Unit], first: Sequence[Report]) -> list[Copies]:
        """How often the samples of each unit are taken."""
        trained = judged.num_trained(
            self.context,
            [report["samples"] for report in first],
            near.trained_verdicts(self.context),
        )
        weights = [source.weight for source in self.recipe.data.train]
        sources = [source_number(self.recipe, unit) for unit in parts]
        have = [0] * (len(weights) + len(self.recipe.data.held_out))
        firsts = []
        for source, count in zip(sources, trained, strict=True):
            firsts.append(have[source])
            have[source] += int(count)
        wanted = takes(have[: len(weights)], weights, self.recipe.data.mix)
        check_takes(names(self.recipe.data.train), have, wanted)
        wanted += have[len(weights) :]
        return [
            Copies(have=have[source], take=wanted[source], first=rank)
            for source, rank in zip(sources, firsts, strict=True)
        ]

    def pack(self, parts: Sequence[Unit], first: Sequence[Report]) -> dict[str, list[Report]]:
        found = {}
        for split in SPLITS:
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

        return run_on_ray(stage, items, self.context, told, access=self.access, look=looked_at)


def _samples(report: Report) -> int:
    return int(report["samples"])


def source_number(recipe: Recipe, unit: Unit) -> int:
    """The number of a unit's source: those of data.train, then those of data.held_out."""
    before = len(recipe.data.train) if unit.source.split == "held_out" else 0
    return before + unit.source.entry


def first_lines(parts: Sequence[Unit], reports: Sequence[Report]) -> list[int]:
    """Lines of its file before each unit."""
    before: Counter[tuple[str, int, str]] = Counter()
    found = []
    for unit, report in zip(parts, reports, strict=True):
        found.append(before[unit.source.place])
        before[unit.source.place] += report["lines"]
    return found


def labels_of(recipe: Recipe, reports: Sequence[Report]) -> list[str]:
    """Labels in the order of their ids; none for causal models."""
    if recipe.task != "sequence_classification":
        return []
    found = sorted({label for report in reports for label in report["labels"]})
    if recipe.data.labels:
        return list(recipe.data.labels)
    if len(found) == 1:
        raise UselessRowsError(f"data.columns.label: every row has the label {found[0]}")
    if len(found) >= cleaned.MOST_LABELS:
        raise UselessRowsError(
            f"data.columns.label: has {len(found):,} values and more; is it the label? "
            "Name the column with data.columns={label: NAME}"
        )
    return found
