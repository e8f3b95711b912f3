"""Sources, units, and rows in every kind of file."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.prepare.reading import RawRow, read
from launcher.prepare.sources import find_sources
from launcher.prepare.units import units
from recipes.data import Data, Source
from recipes.errors import DataError

ROWS = [{"text": f"row {number} 人工智能 😀 \u2028x", "label": number % 2} for number in range(40)]


def rows_of(path: str) -> Data:
    return Data(train=[Source(path=path)])


def read_all(data: Data, unit_bytes: int = 2**25, cache: Path = Path("/none")) -> list[RawRow]:
    return [row for unit in units(find_sources(data, cache), unit_bytes) for row in read(unit)]


def texts(rows: list[RawRow]) -> list[str]:
    return [row.columns["text"] for row in rows if row.columns is not None]


@pytest.mark.parametrize("unit_bytes", [1, 7, 50, 64, 1000, 10**6])
def test_units_of_lines_hold_each_line_once(tmp_path: Path, unit_bytes: int):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS))
    assert texts(read_all(rows_of(str(file)), unit_bytes)) == [row["text"] for row in ROWS]


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path):
    import csv

    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps(row) + "\r\n" for row in ROWS), encoding="utf-8-sig"
    )
    (tmp_path / "b.json").write_text(json.dumps(ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "c.parquet", row_group_size=7)
    with (tmp_path / "d.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, ["text", "label"])
        writer.writeheader()
        writer.writerows(ROWS)
    (tmp_path / "e.txt").write_text("".join(row["text"] + "\n\n" for row in ROWS))
    expected = [row["text"] for row in ROWS]
    for name in ("a.jsonl", "b.json", "c.parquet", "d.csv", "e.txt"):
        assert texts(read_all(rows_of(str(tmp_path / name)), 1000)) == expected, name
    # A folder is all its files, by name.
    assert texts(read_all(rows_of(str(tmp_path)))) == expected * 5


def test_lines_that_are_no_rows_are_kept_with_their_reason(tmp_path: Path):
    file = tmp_path / "odd.jsonl"
    file.write_bytes(b'{"text": "a"}\n\nnot json\n[1]\n{"text": "\xff"}\n  \n{"text": "b"}')
    rows = read_all(rows_of(str(file)))
    assert [(row.number, row.reason) for row in rows] == [
        (0, ""),
        (2, "not JSON"),
        (3, "not a row"),
        (4, "not UTF-8"),
        (6, ""),
    ]


def test_odd_csv_rows(tmp_path: Path):
    file = tmp_path / "odd.csv"
    file.write_bytes(b"text,label\na,1\nb,2,3\n\xff,1\n")
    assert [row.reason for row in read_all(rows_of(str(file)))] == [
        "",
        "not a row",
        "not UTF-8",
    ]


def test_paths_that_cannot_be_used(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text("{}")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "rows.xls").write_text("x")
    (tmp_path / "folder").mkdir()
    for name, said in [
        ("row.jsonl", r"there is no such file. Did you mean .*/rows.jsonl\?"),
        ("empty.jsonl", "the file is empty"),
        ("rows.xls", "unknown kind of file '.xls'; known: .jsonl"),
        ("folder", "the folder holds no file of .jsonl"),
    ]:
        with pytest.raises(DataError, match=said):
            read_all(rows_of(str(tmp_path / name)))
    with pytest.raises(DataError, match=r"Get it with: shoal samples movies"):
        read_all(rows_of("sample:movies/a.jsonl"), cache=tmp_path)
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(DataError, match=r"belongs into a .jsonl file"):
        read_all(rows_of(str(tmp_path / "b.json")))
    (tmp_path / "c.parquet").write_text("{")
    with pytest.raises(DataError, match="is no parquet file"):
        read_all(rows_of(str(tmp_path / "c.parquet")))
