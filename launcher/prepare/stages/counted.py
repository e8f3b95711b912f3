"""A stage before the first, for recipes with boilerplate_lines: in how many texts each line stands.

Lines are counted as they are when that step comes, so what is before it is done twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from launcher.prepare.cleaning import (
    Cleaner,
    before_boilerplate,
    boilerplate_step,
    cleaner_of,
)
from launcher.prepare.cleaning.lines import LineCounter, find_frequent
from launcher.prepare.reading import read
from launcher.prepare.shapes import to_sample
from launcher.prepare.sources.source import Unit
from launcher.prepare.stages.cleaned import FREQUENT_LINES
from launcher.prepare.stages.context import Context
from launcher.prepare.stages.stage import Report
from launcher.prepare.unusable import Unusable
from recipes.files import whole_path

FOLDER = "count"


def count_unit(unit: Unit, context: Context) -> Report:
    """Count the lines of one unit; memory: 8 bytes a line, and 16 for each different one."""
    recipe = context.recipe
    step = boilerplate_step(recipe.data.clean)
    assert step is not None
    before = _Before(
        cleaner_of(
            before_boilerplate(recipe.data.clean),
            tokenizer_folder=context.tokenizer,
        )
    )
    counter = LineCounter(step)
    rows = 0
    for raw in read(unit):
        rows += 1
        if raw.columns is None:
            continue
        try:
            to_sample(raw.columns, recipe, unit.source.spec, before)
        except Unusable:
            continue
        for text in before.texts:
            counter.add(text)
    file = context.file(FOLDER, unit.number, ".lines")
    with whole_path(file) as aside:
        counter.save(aside)
    return {"rows": rows, "files": context.named(file)}


class _Before:
    """Does the steps before, and keeps what the step will be given: of a sample it could not be
    told, which has the words of data.system, data.prompt and the label too."""

    def __init__(self, cleaner: Cleaner) -> None:
        self._cleaner = cleaner
        self.texts: Sequence[str] = ()

    def clean(self, texts: Sequence[str]) -> list[str]:
        found = self._cleaner.clean(texts)
        self.texts = found
        return found


def leave_frequent_lines(context: Context, num_units: int) -> None:
    """Leave the lines that stand in more texts than the recipe allows."""
    step = boilerplate_step(context.recipe.data.clean)
    assert step is not None
    files = [context.file(FOLDER, unit, ".lines") for unit in range(num_units)]
    found = find_frequent(files, step.max_texts, context.work / FOLDER)
    with whole_path(context.work / FREQUENT_LINES) as aside, aside.open("wb") as stream:
        np.save(stream, found)
