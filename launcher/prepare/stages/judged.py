"""The second stage: which samples are trained on, which are held out, which are set aside.

Equal inputs meet in one task, which sees a range of their hashes over all units. It leaves a
verdict for each sample that is not simply trained on, in the order of the units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from launcher.prepare.stages import cleaned, selection
from launcher.prepare.stages.context import Context
from launcher.prepare.stages.runs import PREFIXES, counts, read_run, write_run
from launcher.prepare.stages.stage import Report
from recipes.files import whole_path

FOLDER = "judge"
VERDICT = np.dtype([("index", "<u4"), ("code", "i1")])

# About 250 MB for a task, sorting included.
_SAMPLES_PER_TASK = 2**21


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The samples whose hash begins with begin ≤ prefix < end, of all units."""

    number: int
    begin: int
    end: int
    num_units: int


def ranges(num_records: int, num_units: int, per_task: int = _SAMPLES_PER_TASK) -> list[Range]:
    """Ranges of hashes that hold about `per_task` records each."""
    count = min(PREFIXES, max(1, -(-num_records // per_task)))
    edges = [PREFIXES * number // count for number in range(count + 1)]
    return [
        Range(number=number, begin=begin, end=end, num_units=num_units)
        for number, (begin, end) in enumerate(pairwise(edges))
    ]


def judge_range(part: Range, context: Context) -> Report:
    """Judge the samples of one range of hashes."""
    runs = [
        read_run(cleaned.files_of(context, unit)[1], cleaned.KEY, part.begin, part.end)
        for unit in range(part.num_units)
    ]
    units = np.repeat(np.arange(part.num_units), [len(run) for run in runs])
    records = np.concatenate(runs)
    # The first of equal samples is the first in the order of the sources.
    order = np.lexsort((records["index"], units))
    units, records = units[order], records[order]
    data = context.recipe.data
    verdicts = selection.select(
        records["digest"].astype("S16").view("V16"),
        records["question"].astype("S16").view("V16"),
        records["held_out"],
        held_out_fraction=data.held_out_fraction,
        deduplicate=data.deduplicate != "none",
        labels_must_agree=context.recipe.task == "sequence_classification",
    )
    told = verdicts.codes != selection.code(selection.TRAIN)
    file = context.file(FOLDER, part.number, ".verdicts")
    write_verdicts(
        file, units[told], records["index"][told], verdicts.codes[told], num_units=part.num_units
    )
    return {"samples": len(records), "files": context.named(file)}


def write_verdicts(
    file: Path,
    units: npt.NDArray[np.int64],
    indices: npt.NDArray[np.uint32],
    codes: npt.NDArray[np.int8],
    *,
    num_units: int,
) -> None:
    """Verdicts of samples, to be read unit by unit."""
    found = np.zeros(len(units), VERDICT)
    found["index"], found["code"] = indices, codes
    with whole_path(file) as aside:
        write_run(aside, units, found, num_units)


def codes_of(
    context: Context, unit: int, num_samples: int, folders: tuple[str, ...]
) -> npt.NDArray[np.int8]:
    """The verdict of each sample of a unit, numbers of `selection`; of several stages the last one
    that has a word."""
    codes = np.full(num_samples, selection.code(selection.TRAIN), np.int8)
    for folder in folders:
        for file in sorted((context.work / folder).glob("*.verdicts")):
            found = read_run(file, VERDICT, unit, unit + 1)
            codes[found["index"]] = found["code"]
    return codes


def num_trained(context: Context, num_samples: Sequence[int], near: Path) -> list[int]:
    """Samples of each unit that are trained on, of units with so many samples. `near` holds the
    verdicts on near duplicates among them, if those were looked for."""
    left = np.array(num_samples, np.int64)
    for file in [*(context.work / FOLDER).glob("*.verdicts"), near]:
        if file.is_file():
            left -= counts(file)
    return [int(count) for count in left]
