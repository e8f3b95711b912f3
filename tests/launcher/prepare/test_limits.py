"""The first rows of a source, and what reading them holds in memory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from launcher.prepare.reading import read
from launcher.prepare.sources.source import find_sources
from launcher.prepare.sources.units import units
from recipes.data import Data, Source
from support.row_files import PACKERS, WRITERS, columns_of, read_all, write

ROWS = [{"text": f"row {number}"} for number in range(40)]


@pytest.mark.parametrize("packing", list(PACKERS))
@pytest.mark.parametrize("name", list(WRITERS))
def test_a_limit_takes_the_first_rows_however_a_file_is_cut(
    tmp_path: Path, name: str, packing: str
):
    file = str(write(ROWS, tmp_path, name, packing))
    for limit in (1, 7, 8, 39, 40, 41):
        for unit_bytes in (1, 100, 10**6):
            found = read_all(Source(path=file, limit=limit), unit_bytes=unit_bytes)
            assert columns_of(found) == ROWS[:limit]


def test_a_limit_is_that_of_an_entry_over_all_its_files(tmp_path: Path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        write(ROWS, tmp_path / name, "rows.jsonl")
    # Rows that fail are rows too; blank lines are none.
    (tmp_path / "a" / "rows.jsonl").write_text('\n{"text": "a"}\n \nno row\n{"text": "b"}\n')
    folder, single = Source(path=str(tmp_path), limit=10), Source(path=f"{tmp_path}/c", limit=2)
    found = read_all(folder, single, f"{tmp_path}/b", unit_bytes=50)
    assert [row.columns or row.reason for row in found] == [
        {"text": "a"},
        "not JSON",
        {"text": "b"},
        *ROWS[:7],
        *ROWS[:2],
        *ROWS,
    ]


def test_rows_of_a_limit_have_the_numbers_of_their_lines(tmp_path: Path):
    """Whatever stands behind the last row of a unit before them."""
    lines = [f'{{"text": "{n}"}}\n' + "\n" * (n % 4) for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    source = Source(path=str(tmp_path / "rows.jsonl"), limit=19)
    expected = [sum(line.count("\n") for line in lines[:n]) for n in range(19)]
    for unit_bytes in (20, 33, 64, 10**6):
        numbers, before = [], 0
        for unit in units(find_sources(Data(train=[source]), tmp_path), unit_bytes):
            rows = read(unit)
            numbers += [before + row.number for row in rows]
            before += rows.lines
        assert numbers == expected


def test_a_limit_is_found_without_reading_on(tmp_path: Path):
    """What comes after could not be read at all."""
    write(ROWS, tmp_path, "rows.jsonl")
    (tmp_path / "torn.parquet").write_text("{}")
    sources = find_sources(Data(train=[Source(path=str(tmp_path), limit=9)]), tmp_path)
    assert len(sources) == 2
    parts = units(sources, 64)
    assert [unit.number for unit in parts] == list(range(len(parts)))
    assert sum(1 for unit in parts for _ in read(unit)) == 9
    assert parts[-1].end < sources[0].bytes


LINE = json.dumps({"text": "words and more words " * 40, "label": 1}) + "\n"
COUNT = 48_000  # about 42 MB


def _lines(stream: Any) -> None:
    for _ in range(COUNT // 1000):
        stream.write(LINE.encode() * 1000)


def _json(stream: Any) -> None:
    stream.write(b'{"data": [' + LINE.encode())
    for _ in range(COUNT // 1000):
        stream.write(("," + LINE).encode() * 1000)
    stream.write(b"]}")


def _csv(stream: Any) -> None:
    stream.write(b"text,label\n")
    for _ in range(COUNT // 1000):
        stream.write(('"' + "words and, more\n" * 3 + "words " * 140 + '",1\n').encode() * 1000)


def _one_line(stream: Any) -> None:
    for _ in range(250):
        stream.write(b"x" * 10**6)


def _open_quote(stream: Any) -> None:
    stream.write(b'text\n"an open quote\n')
    for _ in range(250):
        stream.write(b"x" * 10**6 + b"\n")


def _packed(file: Path) -> Any:
    if file.suffix == ".gz":
        return gzip.open(file, "wb", compresslevel=1)
    if file.suffix == ".zst":
        return pa.CompressedOutputStream(str(file), "zstd")
    return file.open("wb")


@pytest.mark.parametrize(
    ("name", "fill", "allowed_mb"),
    [
        ("a.jsonl.gz", _lines, 20),
        ("a.jsonl.zst", _lines, 20),
        ("a.json", _json, 20),
        ("a.csv.gz", _csv, 20),
        # Of 250 MB: the longest row, in parts, joined, and as characters of the csv module.
        ("a.jsonl", _one_line, 100),
        ("a.csv", _open_quote, 250),
    ],
)
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, name: str, fill: Callable[[Any], None], allowed_mb: int
):
    with _packed(tmp_path / name) as stream:
        fill(stream)
    program = f"""
import re
from pathlib import Path
from launcher.prepare.reading import read
from launcher.prepare.sources.source import find_sources
from launcher.prepare.sources.units import units
from recipes.data import Data, Source
[unit] = units(find_sources(Data(train=[Source(path={str(tmp_path / name)!r})]), Path("/")), 2**40)
# Of this process alone; that of getrusage is at least what its parent had when it started it.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
rows = sum(1 for _ in read(unit))
print(rows, (peak() - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows, grown_mb = map(int, done.stdout.split())
    assert rows == {"a.json": COUNT + 1, "a.csv": 251, "a.jsonl": 1}.get(name, COUNT)
    assert grown_mb < allowed_mb, grown_mb
