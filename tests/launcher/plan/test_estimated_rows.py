"""How many rows there are in files of every kind, from their beginnings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.plan import rows
from launcher.plan.rows import estimate_rows
from launcher.prepare.sources.source import find_sources
from recipes.base import Base
from recipes.data import Data, Source
from recipes.errors import DataError
from recipes.recipe import Recipe
from recipes.train import Train
from support.row_files import PACKERS, WRITERS, write

ROWS = [{"text": f"row {number:03d}" + " and some more words" * 5} for number in range(400)]


def estimated(*sources: Source) -> int:
    data = Data(train=list(sources), format="text")
    recipe = Recipe(name="r", base=Base(source="b"), data=data, train=Train(steps=1))
    return len(estimate_rows(recipe, find_sources(data, Path("/none"))))


@pytest.mark.parametrize("packing", list(PACKERS))
@pytest.mark.parametrize("name", list(WRITERS))
def test_rows_of_every_kind(
    tmp_path: Path, name: str, packing: str, monkeypatch: pytest.MonkeyPatch
):
    file = write(ROWS, tmp_path, name, packing)
    assert estimated(Source(path=str(file))) == 400
    # Of a part of a large file the rest is guessed; of packed ones by the size that they tell, or,
    # where they do not as here, by 3 times their bytes.
    monkeypatch.setattr(rows, "_LOOKED_AT_BYTES", 5_000)
    monkeypatch.setattr(rows, "_LOOKED_AT_ROWS", 20)
    found = estimated(Source(path=str(file)))
    if not packing:
        assert found == pytest.approx(400, rel=0.25)
    assert found >= 20


def test_what_comes_before_the_rows_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "_LOOKED_AT_BYTES", 5_000)
    file = tmp_path / "rows.json"
    for about in (0, 30_000, 100_000):
        file.write_text(json.dumps({"about": "x" * about, "data": ROWS}))
        assert estimated(Source(path=str(file))) == pytest.approx(400, rel=0.25)


def test_a_limit_counts_over_all_files_of_an_entry(tmp_path: Path):
    for name in ("rows.jsonl", "rows.csv"):
        write(ROWS, tmp_path, name)
    folder = Source(path=str(tmp_path), limit=450)
    assert estimated(folder) == 450
    assert estimated(folder, Source(path=f"{tmp_path}/rows.csv", limit=7)) == 457
    assert estimated(folder, Source(path=f"{tmp_path}/rows.csv")) == 850


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.csv",
            "评论,标签\n好,正\n",
            r"a.csv row 1: no known column: .*评论, 标签. Name the columns",
        ),
        ("a.jsonl", b'{"text": "\xba\xc3"}', "a.jsonl row 1: not UTF-8: .* by iconv -f GB18030"),
        ("a.jsonl", '\n{"text": " "}', "a.jsonl row 2: empty"),
        ("a.jsonl", "\n", "there are no rows in its files"),
    ],
)
def test_rows_of_which_none_can_be_used_are_told(
    tmp_path: Path, name: str, content: str | bytes, said: str
):
    """A plan would else be of no rows, and not say why."""
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    data = Data(train=[Source(path=str(file))])
    recipe = Recipe(name="r", base=Base(source="b"), data=data, train=Train(steps=1))
    with pytest.raises(DataError, match=f"data.train: .*{said}"):
        estimate_rows(recipe, find_sources(data, Path("/none")))
