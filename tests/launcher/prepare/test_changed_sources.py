"""Sources that are written to while they are prepared: no shard of two versions is kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.prepare.pipeline import prepare
from launcher.prepare.reading import read
from launcher.prepare.sources.source import find_sources
from launcher.prepare.sources.units import units
from launcher.prepare.stages.mixture import check_takes
from recipes.data import Data, Source, steps
from recipes.errors import DataError
from support.prepared import recipe, write

ROWS = [{"text": f"w{number % 100} w{number // 100}"} for number in range(900)]


def shorten(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def rewrite(file: Path) -> None:
    write(file, ROWS[::-1])


def replace(file: Path) -> None:
    write(file.with_suffix(".new.jsonl"), ROWS[:9]).replace(file)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.gz", "a.parquet", "a.arrow"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shorten, "was changed while it was read"),
        (rewrite, "was changed while it was read"),
        (replace, "was changed while it was read"),
        (Path.unlink, "was deleted while it was read"),
    ],
)
def test_a_unit_of_another_version_is_not_read(
    tmp_path: Path, name: str, change: Callable[[Path], None], said: str
) -> None:
    file = write(tmp_path / name, ROWS)
    os.utime(file, (0, 0))  # a kernel's clock for files may stand still for ten milliseconds
    parts = units(find_sources(Data(train=[Source(path=str(file))]), tmp_path), 2000)
    change(file)
    with pytest.raises(DataError, match=rf"{file}: {said}"):
        [list(read(part)) for part in parts]


@pytest.mark.usefixtures("local_ray")
def test_a_source_that_grows_is_not_kept_under_the_key_of_what_it_was(
    llama: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.jsonl", ROWS)
    grown = False

    def grow(name: str, done: int, total: int, *, rows: int = 0) -> None:
        nonlocal grown
        if name == "cleaning" and not grown:
            grown = True
            with file.open("a") as stream:
                stream.write('{"text": "w1"}\n')

    chosen = recipe([Source(path=str(file))])
    with pytest.raises(DataError, match="was changed while it was read"):
        prepare(chosen, base_folder=llama, cache=tmp_path, progress=grow)
    assert not list((tmp_path / "prepared").iterdir())
    prepared = prepare(chosen, base_folder=llama, cache=tmp_path, progress=grow)
    assert prepared.manifest["rows_read"] == len(ROWS) + 1


@pytest.mark.usefixtures("local_ray")
def test_rows_cleaned_by_another_step_are_not_kept_under_the_key_of_the_one_before(
    llama: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.jsonl", ROWS)
    words = tmp_path / "words.txt"
    words.write_text("w1\n")

    def edit(name: str, done: int, total: int, *, rows: int = 0) -> None:
        if name == "cleaning":
            words.write_text("w2\n")

    chosen = recipe([Source(path=str(file))], clean=[steps.StopWords(file=str(words))])
    with pytest.raises(DataError, match="changed while rows were cleaned"):
        prepare(chosen, base_folder=llama, cache=tmp_path, progress=edit)
    assert not list((tmp_path / "preparing").iterdir())


def test_weights_that_are_too_far_apart_are_told() -> None:
    check_takes(["a", "b"], [10, 20], [10_000, 20])
    check_takes(["a", "b"], [0, 20], [0, 20])
    with pytest.raises(DataError, match=r"the 10 samples of a would be repeated 1,100 times"):
        check_takes(["a", "b"], [10, 20], [11_000, 20])
    with pytest.raises(DataError, match=r"not one of the 20 samples of b is taken"):
        check_takes(["a", "b"], [10, 20], [10, 0])
