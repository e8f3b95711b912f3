"""A stage before the first, for recipes with boilerplate_lines: in how many texts each line stands.

Lines are counted as they are when that step comes, so what is before it is done twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from launcher.prepare.cleaned import FREQUENT_LINES
from launcher.prepare.cleaning import before_boilerplate, boilerplate_step, cleaner_of
from launcher.prepare.cleaning.lines import LineCounter, find_frequent
from launcher.prepare.context import Context
from launcher.prepare.reading import read
from launcher.prepare.shapes import to_sample
from launcher.prepare.shapes.sample import changed_together
from launcher.prepare.sources import Unit
from launcher.prepare.stage import Report
from launcher.prepare.unusable import Unusable
from recipes.files import whole_path

FOLDER = "count"


def count_unit(unit: Unit, context: Context) -> Report:
    """Count the lines of one unit; memory: 8 bytes a line, and 16 for each different one."""
    recipe = context.recipe
    step = boilerplate_step(recipe.data.clean)
    assert step is not None
    cleaner = cleaner_of(
        before_boilerplate(recipe.data.clean),
        tokenizer_folder=Path(context.tokenizer_folder),
        new_tokens=recipe.base.new_tokens,
    )
    counter = LineCounter(step)
    rows = 0
    for raw in read(unit):
        rows += 1
        if raw.columns is None:
            continue
        try:
            sample = to_sample(raw.columns, recipe, unit.source.spec, cleaner)
        except Unusable:
            continue
        changed_together(sample.map_texts, lambda texts: _count(texts, counter))
    file = context.file(FOLDER, unit.number, ".lines")
    with whole_path(file) as aside:
        counter.save(aside)
    return {"rows": rows, "files": context.named(file)}


def _count(texts: Sequence[str], counter: LineCounter) -> Sequence[str]:
    for text in texts:
        counter.add(text)
    return texts


def leave_frequent_lines(context: Context, num_units: int) -> None:
    """Leave the lines that stand in more texts than the recipe allows."""
    step = boilerplate_step(context.recipe.data.clean)
    assert step is not None
    files = [context.file(FOLDER, unit, ".lines") for unit in range(num_units)]
    found = find_frequent(files, step.max_texts, context.work / FOLDER)
    with whole_path(context.work / FREQUENT_LINES) as aside, aside.open("wb") as stream:
        np.save(stream, found)
