"""Boilerplate: counting lines over all texts, and taking the frequent ones out."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launcher.prepare.cleaning import Cleaner, lines
from launcher.prepare.cleaning.cleaner import before_boilerplate
from launcher.prepare.sources.source import find_sources
from launcher.prepare.sources.units import units
from launcher.prepare.stages import counted
from launcher.prepare.stages.cleaned import FREQUENT_LINES
from launcher.prepare.stages.context import Context
from recipes.base import Base
from recipes.data import Data, Source, steps
from recipes.recipe import Recipe
from recipes.train import Train

STEP = steps.BoilerplateLines(max_texts=3, min_characters=4)
MENU = "首页 | 关于我们"


def count(texts: list[str], file: Path) -> Path:
    counter = lines.LineCounter(STEP)
    for text in texts:
        counter.add(text)
    counter.save(file)
    return file


def made_texts(number: int) -> list[str]:
    made = random.Random(number)
    return [
        "\n".join(f"line {int(made.paretovariate(0.7)) % 5000:04d}" for _ in range(8))
        for _ in range(300)
    ]


@pytest.mark.parametrize(("files", "records"), [(4, 1 << 21), (2, 64), (256, 16)])
def test_merging_equals_a_counter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, records: int
):
    """Whatever the blocks in which, and the rounds of files by which they are merged."""
    monkeypatch.setattr(lines, "_MERGED_FILES", files)
    monkeypatch.setattr(lines, "_MERGED_RECORDS", records)
    units = [made_texts(number) for number in range(9)] + [[]]
    paths = [count(texts, tmp_path / f"{n}.bin") for n, texts in enumerate(units)]
    counted = Counter(line for texts in units for text in texts for line in lines.lines_of(text, 4))
    expected = sorted(lines.hash_of(line) for line, n in counted.items() if n > 3)
    assert 100 < len(expected) < len(counted)
    found = lines.find_frequent(paths, 3, tmp_path)
    assert found.dtype == np.uint64
    assert found.tolist() == expected
    assert lines.find_frequent(paths[::-1], 3, tmp_path).tolist() == expected


def test_nothing_is_frequent_where_nothing_is(tmp_path: Path):
    assert lines.find_frequent([], 3, tmp_path).tolist() == []
    assert lines.find_frequent([count([], tmp_path / "0.bin")], 3, tmp_path).tolist() == []


def test_a_line_counts_once_in_a_text_and_is_the_same_everywhere():
    assert lines.lines_of(f" {MENU}\nab\n{MENU} \r\n\n正文在这里", 4) == [MENU, "正文在这里"]
    assert lines.hash_of("首页") == 0xB9F33827900541ED
    assert lines.hash_of("\ud800") != lines.hash_of("\ud801")


def test_frequent_lines_are_taken_out(tmp_path: Path):
    texts = [f"{MENU}\n正文第{n}段\n短\n{MENU}" for n in range(4)]
    frequent = lines.find_frequent([count(texts, tmp_path / "0.bin")], STEP.max_texts, tmp_path)
    file = tmp_path / "frequent.npy"
    np.save(file, frequent)
    cleaner = Cleaner([STEP], frequent_lines=file)
    assert cleaner.clean(texts[:1]) == ["正文第0段\n短"]
    assert cleaner.clean([f"  {MENU}\t", "正文\n短\n\n"]) == ["", "正文\n短\n\n"]
    assert cleaner.take_counts() == {"boilerplate_lines": 2}


def test_lines_are_counted_after_the_steps_before():
    recipe = [steps.StripHtml(), steps.Characters(min=2), STEP, steps.Segment()]
    assert before_boilerplate(recipe) == recipe[:2]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"system": "You are a judge of reviews"},
        {"prompt": ["Review: {text}\n\nGood or bad?", "{text}"]},
        {"prompt": ["{text}"], "answer": "{text} is {label}"},
    ],
)
def test_lines_are_counted_as_the_step_will_see_them(tmp_path: Path, data: dict[str, Any]):
    """Without what the recipe and the label say around them, and as often as they stand there."""
    rows = [
        {
            "text": f"{MENU}\n{'in half of the texts' if n % 2 else ''}\ntext {n}",
            "label": "very good",
        }
        for n in range(30)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = Recipe(
        name="r",
        base=Base(source="b"),
        data=Data(
            train=[Source(path=str(file))],
            clean=[steps.BoilerplateLines(max_texts=15, min_characters=4)],
            **data,
        ),
        train=Train(steps=1),
    )
    (tmp_path / "work").mkdir()
    context = Context(recipe=chosen, work=tmp_path / "work")
    [unit] = units(find_sources(chosen.data, tmp_path), 2**20)
    assert counted.count_unit(unit, context)["rows"] == 30
    counted.leave_frequent_lines(context, 1)
    frequent = np.load(context.work / FREQUENT_LINES)
    assert frequent.tolist() == [lines.hash_of(MENU)]


def test_without_the_file_the_step_is_left_out_if_that_is_meant():
    with pytest.raises(ValueError, match="boilerplate_lines was not given what it needs"):
        Cleaner([STEP])
    assert Cleaner([STEP], partial=True).clean([MENU]) == [MENU]
