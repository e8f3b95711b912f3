"""Rows made to break a reader: each is kept or set aside with its reason, and counted."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.prepare.reading import RawRow, json_file
from launcher.prepare.reading.row import KEPT_BYTES, LONGEST_ROW_BYTES
from recipes.errors import DataError
from support.row_files import read_all

Maker = Callable[[random.Random], bytes]

KEPT: dict[str, Maker] = {
    "a row": lambda dice: json.dumps({"text": f"row {dice.random()}"}).encode(),
    "Chinese": lambda dice: json.dumps(
        {"text": "人" * dice.randint(1, 9)}, ensure_ascii=False
    ).encode(),
    "a character of two halves": lambda dice: rb'{"text": "\ud83d\ude00 \\ud800"}',
    "an escaped NUL": lambda dice: rb'{"text": "a\u0000b"}',
    "an empty text": lambda dice: b'{"text": ""}',
    "wrong types": lambda dice: b'{"text": 7, "label": [null, {"a": true}]}',
    "a large number": lambda dice: b'{"text": "a", "n": %d}' % dice.getrandbits(900),
    "a number beyond floats": lambda dice: b'{"text": "a", "n": 1e999, "m": -Infinity}',
    "no number": lambda dice: b'{"text": "a", "n": NaN}',
    "brackets in a text": lambda dice: json.dumps({"text": "[{" * dice.randint(99, 999)}).encode(),
    "nested": lambda dice: b'{"a":' + b"[" * 60 + b"]" * 60 + b"}",
    "many flat lists": lambda dice: b'{"a": [' + b"[]," * 99 + b"[]]}",
    "CR at its end": lambda dice: b'{"text": "a"}\r',
    "space around": lambda dice: b'  {"text": "a"} \t',
}
FAILED: dict[str, tuple[str, Maker]] = {
    "Latin-1": ("not UTF-8", lambda dice: b'{"text": "caf\xe9"}'),
    "random bytes": ("not UTF-8", lambda dice: b"\xff" + dice.randbytes(99).replace(b"\n", b"")),
    "a coded surrogate": ("not UTF-8", lambda dice: b'{"text": "\xed\xa0\x80"}'),
    "an overlong slash": ("not UTF-8", lambda dice: b'{"text": "\xc0\xaf"}'),
    "half of a character": ("lone surrogate", lambda dice: rb'{"text": "a\ud800b"}'),
    "the other half": ("lone surrogate", lambda dice: rb'{"deep": [{"text": "\uDFFF"}]}'),
    "half of a name": ("lone surrogate", lambda dice: rb'{"\udc00": "a"}'),
    "a torn row": ("not JSON", lambda dice: b'{"text": "a'),
    "a NUL in a text": ("not JSON", lambda dice: b'{"text": "a\x00"}'),
    "NULs": ("not JSON", lambda dice: b"\x00" * dice.randint(1, 99)),
    "no JSON": ("not JSON", lambda dice: "一行文字".encode()),
    "Python": ("not JSON", lambda dice: b"{'text': 'a'}"),
    "two rows": ("not JSON", lambda dice: b'{"text": "a"}{"text": "b"}'),
    "a comma too many": ("not JSON", lambda dice: b'{"text": "a",}'),
    "a number of 5000 digits": ("not JSON", lambda dice: b'{"n": ' + b"9" * 5000 + b"}"),
    "a mark inside": ("not JSON", lambda dice: b'\xef\xbb\xbf{"text": "a"}'),
    "a list": ("not a row", lambda dice: b'[{"text": "a"}]'),
    "a text": ("not a row", lambda dice: b'"a"'),
    "a number": ("not a row", lambda dice: b"%d" % dice.getrandbits(9)),
    "nothing": ("not a row", lambda dice: b"null"),
    "no columns": ("not a row", lambda dice: b"{}"),
    "one name twice": ("key given twice", lambda dice: b'{"text": "a", "text": "b"}'),
    "twice deep inside": ("key given twice", lambda dice: b'{"m": [{"r": 1, "r": 1}]}'),
    "a hundred deep": ("nested too deeply", lambda dice: b'{"a":' + b"[" * 99 + b"]" * 99 + b"}"),
    "a hole": ("nested too deeply", lambda dice: b'{"a":' * 99_999 + b"1" + b"}" * 99_999),
    "a hole without ground": ("nested too deeply", lambda dice: b"[" * 99_999),
}


def made(count: int) -> list[tuple[str, bytes]]:
    """Rows of every kind in random order, each with the reason it fails for, if it does."""
    dice = random.Random(7)
    makers = [("", maker) for maker in KEPT.values()] + list(FAILED.values())
    cheap = [pair for pair in makers if len(pair[1](dice)) < 10_000]
    chosen = [*makers, *(dice.choice(cheap) for _ in range(count - len(makers)))]
    dice.shuffle(chosen)
    return [(reason, maker(dice)) for reason, maker in chosen]


def check_kept(found: list[RawRow]) -> None:
    """What is kept can be written as JSON in UTF-8; of what failed something can be shown."""
    for one in found:
        if one.columns is not None:
            json.dumps(one.columns, ensure_ascii=False).encode()
        else:
            assert one.reason and len(one.detail) <= 500 and len(one.raw) <= KEPT_BYTES


@pytest.mark.parametrize("unit_bytes", [999, 2**25])
def test_1500_hostile_lines_of_json(tmp_path: Path, unit_bytes: int):
    rows = made(1500)
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(content for _, content in rows))
    found = read_all(str(file), unit_bytes=unit_bytes)
    assert [one.reason for one in found] == [reason for reason, _ in rows]
    check_kept(found)
    for one, (_, content) in zip(found, rows, strict=True):
        assert one.columns is not None or content.startswith(one.raw)
        assert one.columns is not None or len(one.raw) == min(len(content), KEPT_BYTES)
    if unit_bytes == 2**25:
        assert [one.number for one in found] == list(range(1500))


def test_the_same_rows_in_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Those whose brackets and quotes leave the list whole."""
    breaks = {"a torn row", "two rows", "no JSON", "random bytes", "a hole without ground"}
    broken = [maker(random.Random(1)) for name, (_, maker) in FAILED.items() if name in breaks]
    rows = [
        (reason, content.strip(b"\r\t "))
        for reason, content in made(500)
        if content not in broken and not content.startswith((b"\xff", b"\xef"))
    ]
    text = b"[" + b" ,\n".join(content for _, content in rows) + b"]"
    for file, content in (
        (tmp_path / "a.json", text),
        (tmp_path / "b.json.gz", gzip.compress(b'{"a": [], "data":' + text + b"}")),
    ):
        file.write_bytes(content)
        found = read_all(str(file))
        assert [(n, one.reason) for n, one in enumerate(found) if one.number == n] == [
            (n, reason) for n, (reason, _) in enumerate(rows)
        ]
        check_kept(found)
        for size in (13, 999):  # most values lie in one block else
            monkeypatch.setattr(json_file, "BLOCK_BYTES", size)
            assert read_all(str(file)) == found
        monkeypatch.undo()


def test_values_of_a_list_that_lie_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [{"a\\": '"\\', "b": ["\\\\", "]}", {"c": 'x"' * n}]} for n in range(9)]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"x": [1.5, True, '"'], "data": rows, "y": None}))
    for size in (1, 2, 3, 5, 8, 64):
        monkeypatch.setattr(json_file, "BLOCK_BYTES", size)
        assert [one.columns for one in read_all(str(file))] == rows


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.txt", "rows.csv", "rows.tsv", "rows.json"])
def test_noise_is_all_accounted_for(tmp_path: Path, name: str):
    dice = random.Random(name)
    signs = [b'"', b",", b"\t", b"{", b"}", b"[", b"]", b":", b"a", b" ", b"\\", b"\r", b"\x00",
             b"\xff", "人".encode(), b"1", b"null", b'"a"', b'"a":']  # fmt: skip
    lines = [b"".join(dice.choices(signs, k=dice.randint(1, 12))) for _ in range(2000)]
    file = tmp_path / name
    if name == "rows.json":
        file.write_bytes(b"[" + b",".join(lines) + b"]")
        with pytest.raises(DataError, match=r"rows\.json: is not JSON"):
            read_all(str(file))
        return
    file.write_bytes(b"text,label\ttext\n" + b"\n".join(lines))
    found = read_all(str(file))
    check_kept(found)
    numbers = [one.number for one in found]
    assert numbers == sorted(set(numbers))
    if name in ("rows.jsonl", "rows.txt"):
        header = 1
        assert numbers == [0, *(n + header for n, line in enumerate(lines) if line.strip())]
    else:
        # Every line is in a record that was kept, or begins one that failed.
        assert len(found) > 1000
        assert {one.reason for one in found} >= {"not a row", "not csv", "not UTF-8"}


def test_a_quote_that_is_never_closed_costs_one_line(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(
        b'text,label\n"over\ntwo ""lines""",1\na,1\n"b,2\nc\n"d"e,4\n\n5" disk,5\n"\xff",6\n,\n'
    )
    found = read_all(str(tmp_path / "a.csv"))
    assert [(one.number, one.columns or one.reason) for one in found] == [
        (0, {"text": 'over\ntwo "lines"', "label": "1"}),
        (1, {"text": "a", "label": "1"}),
        (2, "not csv"),  # its quote is closed by that of "d"
        (3, "not a row"),
        (4, "not csv"),
        (6, {"text": '5" disk', "label": "5"}),
        (7, "not UTF-8"),
        (8, {"text": "", "label": ""}),
    ]
    assert found[2].raw == b'"b,2'
    (tmp_path / "b.csv").write_bytes(b'text\na\n"b\nc\nd')
    found = read_all(str(tmp_path / "b.csv"))
    assert [one.columns or one.reason for one in found] == [
        {"text": "a"},
        "quote never closed",
        {"text": "c"},
        {"text": "d"},
    ]


def test_a_name_is_found_for_a_column_without_one(tmp_path: Path):
    (tmp_path / "a.csv").write_text(",text\n0,a\n1\n2,c,d\n")
    found = read_all(str(tmp_path / "a.csv"))
    assert found[0].columns == {"column_1": "0", "text": "a"}
    assert [one.detail for one in found[1:]] == [
        "1 fields; the header names 2",
        "3 fields; the header names 2",
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_long_rows(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    """One of 10 MB is a row; one beyond the limit fails, and those after it are read."""
    long, too_long = "x" * 10**7, "y" * (LONGEST_ROW_BYTES + 1)
    texts = [long, too_long, "z"]
    if name == "a.jsonl":
        text = "".join(json.dumps({"text": one}) + "\n" for one in texts)
    elif name == "a.json":
        text = json.dumps([{"text": one} for one in texts])
    else:
        text = "\n".join(["text", *texts])
    (tmp_path / name).write_text(text)
    found = read_all(str(tmp_path / name))[-3:]
    assert [one.reason for one in found] == ["", "line too long", ""]
    assert found[0].columns == {"text": long} and found[2].columns == {"text": "z"}
    assert len(found[1].raw) == KEPT_BYTES
    # Units that begin within a long line have none of it, and do not read on to its end.
    if name == "a.jsonl":
        assert [one.reason for one in read_all(str(tmp_path / name), unit_bytes=2**22)] == [
            one.reason for one in found
        ]


def test_columns_that_are_no_text(tmp_path: Path):
    bad = pa.array([b"ok", b"caf\xe9", b"also ok"]).view(pa.string())
    table = pa.table({"text": bad, "label": [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_file(tmp_path / "b.arrow", table.schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "b.arrow"):
        found = read_all(str(tmp_path / name))
        assert [(one.number, one.reason) for one in found] == [(0, ""), (1, "not UTF-8"), (2, "")]
        assert found[1].raw == repr({"text": b"caf\xe9"}).encode()


def test_an_arrow_file_that_lies_about_its_places(tmp_path: Path):
    """Offsets beyond the data would be read from memory that is not there."""
    places = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 2**30, 2)))
    lying = pa.Array.from_buffers(pa.string(), 3, [None, places, pa.py_buffer(b"ab")])
    table = pa.record_batch([lying], names=["text"])
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_batch(table)
    found = read_all(str(tmp_path / "a.arrow"))
    assert [one.reason for one in found] == ["", "value cannot be read", "value cannot be read"]
