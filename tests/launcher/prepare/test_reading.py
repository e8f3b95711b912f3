"""Rows of every kind of file, however it is packed and cut."""

from __future__ import annotations

import dataclasses
import datetime
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.prepare.reading import read
from launcher.prepare.sources.source import find_sources
from launcher.prepare.sources.units import units
from recipes.data import Data, Source
from recipes.errors import DataError
from support.row_files import PACKERS, WRITERS, columns_of, read_all, write

ROWS = [
    {"text": f'row {number} 人工智能 "😀" \u2028x', "note": "a\nb,\t\\" * (number % 3)}
    for number in range(40)
]


@pytest.mark.parametrize("packing", list(PACKERS))
@pytest.mark.parametrize("name", list(WRITERS))
def test_every_kind_gives_the_same_rows_however_it_is_cut(tmp_path: Path, name: str, packing: str):
    file = write(ROWS, tmp_path, name, packing)
    expected = [{"text": row["text"]} for row in ROWS] if name == "rows.txt" else ROWS
    for unit_bytes in (1, 7, 50, 1000, 10**6):
        assert columns_of(read_all(str(file), unit_bytes=unit_bytes)) == expected


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_units_of_lines_hold_each_line_once(tmp_path: Path, ends: str, last: bool):
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    text = ends.join(["", lines[0], "", " ", *lines[1:]]) + (ends if last else "")
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    [source] = find_sources(Data(train=[Source(path=str(file))]), tmp_path)
    for unit_bytes in (1, 2, 3, 5, 64, 333, 10**6):
        found, numbers, before = [], [], 0
        for unit in units([source], unit_bytes):
            rows = read(unit)
            for row in rows:
                found.append(row.columns)
                numbers.append(before + row.number)
            before += rows.lines
        assert found == ROWS
        # Blank lines count in the numbers, so that a row is found by its line.
        assert numbers == [1, *range(4, 43)]
        assert before == 43


def test_many_units_of_few_bytes_are_spread_as_the_file_is(tmp_path: Path):
    file = write(ROWS, tmp_path, "rows.parquet")
    [source] = find_sources(Data(train=[Source(path=str(file))]), tmp_path)
    assert [(unit.begin, unit.end) for unit in units([source], 1)] == [(n, n + 1) for n in range(6)]
    assert [(unit.begin, unit.end) for unit in units([source], 10**6)] == [(0, 6)]
    for name in ("rows.feather", "rows.arrow"):
        file = write(ROWS, tmp_path, name)
        [source] = find_sources(Data(train=[Source(path=str(file))]), tmp_path)
        third = file.stat().st_size // 3
        parts = units([source], third)
        assert [unit.begin for unit in parts[1:]] == [unit.end for unit in parts[:-1]]
        assert 2 <= len(parts) <= 4


@pytest.mark.parametrize("name", ["rows.json", "rows.csv", "rows.jsonl.gz", "rows.txt.zst"])
def test_what_is_read_from_its_beginning_on_is_cut_into_few_parts(tmp_path: Path, name: str):
    end = Path(name).suffix
    packing = end if end in PACKERS else ""
    content = write(ROWS, tmp_path, name.removesuffix(packing)).read_bytes()
    packed = {"": content, ".gz": gzip.compress(content), ".zst": pa.compress(content, "zstd")}
    for folder in ("one", "fifty"):
        (tmp_path / folder).mkdir()
    file = tmp_path / "one" / name
    file.write_bytes(packed[packing])
    [source] = find_sources(Data(train=[Source(path=str(file))]), tmp_path)
    parts = units([source], 1)
    assert [unit.begin for unit in parts] == [n * -(-len(content) // 16) for n in range(16)]
    assert [unit.end for unit in parts] == [*(unit.begin for unit in parts[1:]), 0]
    rows = [sum(1 for _ in read(unit)) for unit in parts]
    assert sum(rows) == len(ROWS) and max(rows) <= 4  # alike, as its size unpacked is known
    assert len(units([source], len(content) // 3 + 1)) == 3
    assert len(units([source], 10**6)) == 1

    for number in range(50):
        (tmp_path / "fifty" / f"{number}_{name}").write_bytes(packed[packing])
    many = find_sources(Data(train=[Source(path=f"{tmp_path}/fifty")]), tmp_path)
    assert len(units(many, 1)) == 50
    assert len(units(many[:10], 1)) == 60
    large = dataclasses.replace(many[0], bytes=2 * sum(one.bytes for one in many))
    assert len([unit for unit in units([large, *many], 1) if unit.source is large]) == 16
    # Rows of these are counted, part after part.
    limited = find_sources(Data(train=[Source(path=str(file), limit=30)]), tmp_path)
    assert [unit.rows for unit in units(limited, 1)] == [30]


HOSTILE = {
    "rows.csv": (
        b'\xef\xbb\xbf\n\ntext,label\na,"1\n2"\n"never closed, b\nc,3\n\n\xff,"4"\n'
        b'd\n"e" f,5\n"g ""h"", \xe4\xb8\xad",6\ni,"7\n\n8\n9"\n"j\nk,10\n'
    ),
    "rows.json": (
        b'\n {"a": {"b": ["]\\""]}, "data": [ {"text": "[{\\"\\\\"} ,{"text": "a\\nb"}, 7, [], nul,'
        b'{"text": \xff}\n,\n{"text": "c", "text": "d"},{},{"text": "\xe4\xb8\xad"} ], "c": 1}\n'
    ),
    "rows.jsonl": b'{"text": "a"}\n\n{"text": \n\xff\n\r\n  {"text": "b"}  \r\n[]\n{"text": "c"}',
}


@pytest.mark.parametrize("packing", list(PACKERS))
@pytest.mark.parametrize("name", list(HOSTILE))
def test_rows_that_are_none_belong_to_one_unit_too(tmp_path: Path, name: str, packing: str):
    file = tmp_path / (name + packing)
    file.write_bytes(PACKERS[packing](HOSTILE[name]))
    [source] = find_sources(Data(train=[Source(path=str(file))]), tmp_path)
    seen = {}
    for unit_bytes in (10**6, 1, 2, 3, 5, 10, 20, 40, 80):
        found, before = [], 0
        for unit in units([source], unit_bytes):
            rows = read(unit)
            found += [(before + row.number, row.columns, row.reason, row.raw) for row in rows]
            before += rows.lines
        seen[unit_bytes] = (found, before)
    assert len(seen[10**6][0]) > 5 and any(row[2] for row in seen[10**6][0])
    assert all(found == seen[10**6] for found in seen.values())


def test_columns_of_every_type_are_read(tmp_path: Path):
    row = {
        "text": "a",
        "messages": [{"role": "user", "content": "b", "train": None}],
        "labels": ["x", "y"],
        "image": {"bytes": b"\x00\xff", "path": None},
        "score": 0.5,
        "count": 2**63 - 1,
        "day": datetime.date(2020, 1, 2),
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    assert columns_of(read_all(str(tmp_path / "rows.parquet"))) == [row]
    coded = pa.table({"text": pa.array(["a", "b", "a"]).dictionary_encode()})
    with pa.ipc.new_stream(tmp_path / "rows.arrow", coded.schema) as writer:
        writer.write_table(coded)
    assert [row["text"] for row in columns_of(read_all(str(tmp_path / "rows.arrow")))] == list(
        "aba"
    )


def test_a_number_that_is_none_is_a_missing_value(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": NaN}\n')
    pq.write_table(pa.table({"text": ["a"], "label": [float("nan")]}), tmp_path / "b.parquet")
    for name in ("a.jsonl", "b.parquet"):
        assert columns_of(read_all(str(tmp_path / name))) == [{"text": "a", "label": None}]


def test_a_file_without_rows_has_none(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text("\n \n")
    (tmp_path / "b.json").write_text(" [ ] ")
    (tmp_path / "c.csv").write_text("text,label\n")
    (tmp_path / "d.json").write_text('{"data": []}')
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "e.parquet")
    assert read_all(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"{", "a.json: is not JSON: it ends after 1 bytes. One object per line belongs"),
        ("a.json", b'{"a": 1}\n{"a": 2}\n', "is not JSON with a list of rows, alone or as its"),
        ("a.json", b'[{"a": 1} {"a": 2}]', r"is not JSON: b'{' at byte 10, where \] was expected"),
        ("a.json", b'[{"a": 1},]', r"is not JSON: b'\]' at byte 10, where a value was expected"),
        ("a.json", b'[{"a": 1}, {"a": "', "is not JSON: it ends after 18 bytes"),
        ("a.json", b'"rows"', r"where \[ was expected"),
        ("a.jsonl", '{"text": "人"}\n'.encode("utf-16"), "a.jsonl: is UTF-16. Convert it: iconv"),
        ("a.csv", "text\n人\n".encode("utf-16-be", "x").join([b"\xfe\xff", b""]), "is UTF-16"),
        ("a.json", '["人"]'.encode("utf-16"), "is UTF-16"),
        ("a.csv", b"text,text\na,b\n", "a.csv: its header names text more than once"),
        ("a.csv", b'"text,label\na,b\n', "its header is no line of csv: quote never closed"),
        (
            "a.csv",
            "评论\n好\n".encode("gb18030"),
            "csv: not UTF-8. .* by iconv -f GB18030 -t UTF-8",
        ),
        ("a.parquet", b"{", "a.parquet: is no parquet file, or damaged"),
        ("a.arrow", b"{}" * 90, "a.arrow: is no Arrow file, or damaged"),
        ("a.jsonl.gz", b'{"text": "a"}\n', "a.jsonl.gz: is no gzip file, or damaged"),
        ("a.jsonl.zst", b'{"text": "a"}\n', "a.jsonl.zst: is no zstd file, or damaged"),
        (
            "a.parquet.gz",
            gzip.compress(b"{", mtime=0),
            "a.parquet.gz: is no parquet file, or damaged",
        ),
    ],
)
def test_files_that_are_not_what_their_name_says(
    tmp_path: Path, name: str, content: bytes, said: str
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as error:
        read_all(str(tmp_path / name))
    assert str(error.value).startswith(str(tmp_path / name))


@pytest.mark.parametrize("packing", list(PACKERS))
@pytest.mark.parametrize("name", [name for name in WRITERS if "json" not in name])
def test_a_file_that_is_cut_off_is_an_error(tmp_path: Path, name: str, packing: str):
    """But for plain lines, where nobody can know."""
    if not packing and name in ("rows.txt", "rows.csv", "rows.tsv"):
        return
    file = write(ROWS, tmp_path, name, packing)
    whole = file.read_bytes()
    for left in (len(whole) - 20, len(whole) // 2):
        file.write_bytes(whole[:left])
        with pytest.raises(DataError, match=r"is cut off|damaged") as error:
            read_all(str(file))
        assert str(error.value).startswith(str(file))


def test_two_columns_of_one_name_cannot_be_told_apart(tmp_path: Path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet: has more than one column text. Rename one"):
        read_all(str(tmp_path / "a.parquet"))
