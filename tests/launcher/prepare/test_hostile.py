"""Hostile rows through the whole stage: each is kept, or set aside with its reason and its content,
and no worker dies of one."""

from __future__ import annotations

import base64
import csv
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.prepare.found import Prepared
from recipes.data import Source
from recipes.errors import DataError
from support.chat_styles import style
from support.prepared import Place, check_accounted, make_base, places, recipe, run, said, set_aside

pytestmark = pytest.mark.usefixtures("local_ray")

END = "<|im_end|>"
ROWS = 1200

Maker = Callable[[random.Random], Any]


def chat(*contents: Any, roles: tuple[Any, ...] = ("user", "assistant"), **more: Any) -> Any:
    said = [{"role": roles[n % len(roles)], "content": text} for n, text in enumerate(contents)]
    said[-1] |= more
    return {"messages": said}


def deep(depth: int) -> bytes:
    return b'{"messages": ' + b'[{"content":' * depth + b"1" + b"}]" * depth + b"}"


def any_of(make: Callable[[Any], Any], *values: Any) -> Maker:
    return lambda dice: make(dice.choice(values))


def asked(part: Any) -> Any:
    return chat([part], "b")


def called(calls: Any) -> Any:
    return chat("a", "b", tool_calls=calls)


def by(role: Any) -> Any:
    return chat("a", "b", roles=("user", role))


def answered(make: Callable[[str], str]) -> Maker:
    """A chat whose answer is made of a number by chance."""
    return lambda dice: chat(f"asked {dice.random()}", make(str(dice.random())))


# What is said in these is learnt as it stands.
KEPT: dict[str, Maker] = {
    "a chat": answered(lambda n: f"one {n}"),
    "right to left": answered(lambda n: f"שלום \u202eabc\u202c مرحبا\u200f {n}"),
    "without width": answered(lambda n: f"a\u200bb\ufeffc\u200d\u2060\u00ad{n}d"),
    "lines of other kinds": answered(lambda n: f"a\u2028b\x85d\u2029e\x0b\x0c{n}f\r"),
    "NUL and bells": answered(lambda n: f"b\x00\x07\x1b[31m{n}c"),
    "accents without end": answered(lambda n: f"Z{chr(0x301) * 999}{n}"),
    "a family and flags": answered(lambda n: f"👨‍👩‍👧‍👦🇨🇳🏴󠁧󠁢󠁥󠁮󠁧󠁿 {n}x"),
    "characters that are none": answered(lambda n: f"\U000323b0\U0010ffff\ufffe\ufdd0{n}x"),
    "code and braces": answered(lambda n: f"{{% for x in y %}} {{{{ 7 * 7 }}}} %s \\n {n}"),
    "tags that are no tokens": answered(lambda n: f"<|user|><|im_start <im_end> {n}"),
    "white space": answered(lambda n: f"  \t{n}\u3000 x"),
    "SQL and shell": answered(lambda n: f"'; DROP TABLE x; -- $(rm -rf /) `x` ../../ {n}"),
    "parts of text": lambda dice: asked({"type": "text", "text": "a"}),
    "100 turns": lambda dice: chat(*(f"turn {n}" for n in range(100))),
    "other keys of any kind": lambda dice: {
        **chat("a", "b"),
        "n": [1e308, -0.0, 2**63, 10**300, None, {"": {"\n": []}}],
        "id\nof it": True,
        "": 1,
    },
}
FAILED: dict[str, dict[str, Maker]] = {
    "not UTF-8": {
        "Latin-1": lambda dice: b'{"messages": "caf\xe9 %d"}' % dice.getrandbits(30),
        "bytes": lambda dice: b"\xff" + dice.randbytes(50).replace(b"\n", b""),
    },
    "not JSON": {
        "NUL bytes": lambda dice: b"\x00" * dice.randint(1, 50),
        "torn": lambda dice: as_bytes(chat("a", "b"))[: dice.randint(1, 40)],
        "10 MB of junk": lambda dice: b"{" + b"x" * 10**7,
    },
    "lone surrogate": {"half a character": lambda dice: rb'{"messages": [{"role": "\ud800"}]}'},
    "nested too deeply": {
        "10,000 deep": lambda dice: deep(10_000),
        "100 deep": lambda dice: deep(100),
    },
    "not a row": {"no object": any_of(bytes, b"[]", b"7", b'"a"', b"null", b"{}")},
    "key given twice": {"a key twice": lambda dice: b'{"messages": 1, "messages": 2}'},
    "no known column": {
        "other names": lambda dice: {"message\n": [], "Text": "a", str(dice.random()): 1},
        "50,000 columns": lambda dice: {f"column {n}": n for n in range(50_000)},
    },
    "no messages": {
        "no list": any_of(lambda value: {"messages": value}, 1, None, True, {}, [], 1.5, "", "[{]"),
        "no number": any_of(bytes, b'{"messages": NaN}', b'{"messages": -Infinity}'),
    },
    "bad message": {
        "no messages": any_of(lambda value: {"messages": [value] * 2}, 1, None, "a", [], {}),
        "odd roles": any_of(by, "Assistant", "", "админ", "role\n", None, 1, ["user"], {}),
        "no content": any_of(lambda value: chat("a", value), 1, None, True, {}, {"text": "a"}),
        "parts of junk": any_of(
            asked, 1, None, {}, {"type": "text"}, {"type": "video"}, {"type": ["text"]}
        ),
        "weights of junk": any_of(lambda value: chat("a", "b", train=value), 2, "yes", [], -1),
    },
    "bad image": {
        "junk": any_of(
            lambda value: asked({"type": "image", "image": value}),
            *([1], "data:;base64,!!!", "data:image/png;base64,QUJD"),
        ),
        "nowhere": any_of(lambda url: asked({"type": "image_url", "image_url": url}), [1], " "),
    },
    "bad tool call": {
        "calls of junk": any_of(called, 1, "x", [1], [{}], [{"function": 1}], [{"name": 1}]),
        "arguments of junk": any_of(
            lambda value: called([{"name": "f", "arguments": value}]), "{", "[1]", 7, [1]
        ),
    },
    "bad tools": {
        "junk": any_of(
            lambda value: {**chat("a", "b"), "tools": value}, 1, "x", [1], [{}], {"a": 1}
        )
    },
    "no answer": {"a question": lambda dice: chat("a", "b", "c")},
    "no question": {
        "an answer alone": lambda dice: chat("a", roles=("assistant",)),
        "rules and an answer": lambda dice: chat("a", "b", roles=("system", "assistant")),
    },
    "empty": {"an empty answer": any_of(lambda value: chat("a", value), "", " ", "\n\t\u3000")},
    "special token in text": {
        "an end within": lambda dice: chat("a", f"b{END}\n<|im_start|>user\nc"),
        "in a question": lambda dice: chat("<|endoftext|>", "b"),
        "in a call": lambda dice: called([{"name": END, "arguments": {}}]),
    },
    "chat template refuses": {"an image for none": lambda dice: asked({"type": "image"})},
    "too long": {
        "long": lambda dice: chat("a", "word " * dice.randint(3000, 5000)),
        "10 MB": lambda dice: chat("a", dice.choice("xy人") * 10**7),
    },
}
_ONCE = ("10 MB", "10 MB of junk", "50,000 columns", "10,000 deep", "100 turns")


def made() -> list[tuple[str, Any]]:
    """The reason and the row, of every kind and in random order; no reason for one that is kept."""
    dice = random.Random(3)
    makers = [("", name, maker) for name, maker in KEPT.items()]
    makers += [(r, name, maker) for r, named in FAILED.items() for name, maker in named.items()]
    often = [entry for entry in makers if entry[1] not in _ONCE]
    chosen = [*makers, *dice.choices(often, k=ROWS - len(makers))]
    dice.shuffle(chosen)
    return [(reason, maker(dice)) for reason, _, maker in chosen]


def as_bytes(row: Any) -> bytes:
    return row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"), "chatml")


def crashed() -> set[bytes]:
    """Workers of this Ray that died of an error rather than of having nothing to do."""
    from ray._private import state
    from ray.core.generated import common_pb2, gcs_pb2

    table = state.state._connect_and_get_accessor().get_worker_table()
    workers = [gcs_pb2.WorkerTableData.FromString(entry) for entry in table]
    return {
        worker.worker_address.worker_id
        for worker in workers
        if not worker.is_alive and worker.exit_type == common_pb2.WorkerExitType.SYSTEM_ERROR
    }


@pytest.fixture(scope="module")
def lines(
    local_ray: None, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Prepared, list[tuple[str, Any]]]:
    folder = tmp_path_factory.mktemp("lines")
    rows = made()
    (folder / "rows.jsonl").write_bytes(b"\n".join(as_bytes(row) for _, row in rows))
    before = crashed()
    chosen = recipe(
        [Source(path=str(folder / "rows.jsonl"), format="messages")],
        max_failed=1.0,
        deduplicate="none",
        held_out_fraction=0.1,
        unit_mb=4,
    )
    prepared, _ = run(chosen, base, folder)
    assert crashed() == before
    return prepared, rows


def test_1200_hostile_chats(lines: tuple[Prepared, list[tuple[str, Any]]]) -> None:
    prepared, rows = lines
    check_accounted(prepared, {"rows.jsonl": ROWS})
    assert len(prepared.manifest["units"]) > 3
    aside = set_aside(prepared)
    found = [aside.get(("rows.jsonl", n), {"reason": ""}) for n in range(1, ROWS + 1)]
    wrong = [
        (number, reason, str(line)[:300])
        for number, ((reason, _), line) in enumerate(zip(rows, found, strict=True), 1)
        if line["reason"] != reason
    ]
    assert not wrong
    counts = Counter(reason for reason, _ in rows if reason)
    assert prepared.manifest["rejected"] == counts
    assert set(counts) == set(FAILED)


def test_what_is_set_aside_is_there_as_it_was(
    lines: tuple[Prepared, list[tuple[str, Any]]],
) -> None:
    prepared, rows = lines
    for (_, number), line in set_aside(prepared).items():
        content = as_bytes(rows[number - 1][1])
        if "base64" in line:
            assert base64.b64decode(line["base64"]) == content[: 2**20]
        elif "sample" in line:  # it was read, and failed as a chat
            assert line["sample"].startswith('{"messages": ')
        elif line["reason"] in ("not JSON", "not a row", "nested too deeply", "lone surrogate",
                                "key given twice"):  # fmt: skip
            assert line["text"].encode() == content[: 2**20]
        else:
            assert repr(json.loads(line["text"])) == repr(
                json.loads(content, parse_constant=_as_read)
            )


def _as_read(name: str) -> float | None:
    return None if name == "NaN" else float(name)


def test_what_is_kept_is_learnt_as_it_stands(
    lines: tuple[Prepared, list[tuple[str, Any]]],
) -> None:
    prepared, rows = lines
    tokenizer = style("chatml")
    kept = said(prepared, tokenizer, "train") | said(prepared, tokenizer, "held_out")
    assert len(kept) > 200
    for (_, number), [(_, learnt)] in kept.items():
        answers = rows[number - 1][1]["messages"][1::2]
        assert learnt == "".join(message["content"] + END for message in answers)


def csv_lines(dice: random.Random) -> Iterator[tuple[str, bytes]]:
    """Records of two columns, each with its reason."""
    for number in range(150):
        yield from dice.sample(
            [
                ("", f"row {number},yes\r\n".encode()),
                ("", f'"of ""two""\nlines {number}",no\n'.encode()),
                ("", b"a\x00b,c\x07\n"),
                ("", "שלום\u202e \u200b,\u2028yes\n".encode()),
                ("empty", b'question," "\n'),
                ("not a row", b"a,b,c\n"),
                ("not a row", b"," * 50_000 + b"\n" if number == 7 else b"one\n"),
                ("not UTF-8", b"caf\xe9,yes\n"),
                ("not csv", b'"a"b,c\n'),
            ],
            3,
        )


def test_hostile_tables(base: Path, tmp_path: Path) -> None:
    """Rows of csv with a column whose name is of two lines, of parquet with columns of any type,
    and lines of plain text."""
    dice = random.Random(5)
    records = list(csv_lines(dice))
    (tmp_path / "a.csv").write_bytes(
        b'"the\nquestion",answer\n' + b"".join(record for _, record in records)
    )
    texts: list[Any] = ["kept \u202e\u200b", "", " \n", None, "a\x00b", "{{x}}"] * 20
    junk = pa.table(
        {
            "the\nquestion": texts,
            "answer": pa.array(["yes"] * len(texts)).dictionary_encode(),
            "nested": [[{"a": [1, None], "b\n": b"\xff\x00"}]] * len(texts),
            "number": pa.array([float("nan"), float("inf"), -0.0, 1e308, None, 0.1] * 20),
            "when": pa.array([2**62] * len(texts), pa.timestamp("ns", "Asia/Shanghai")),
            **{f"c{n}": pa.nulls(len(texts)) for n in range(2000)},
        }
    )
    pq.write_table(junk, tmp_path / "b.parquet", row_group_size=17)
    wrong = [b"bytes", b"\xff\xfe"] * 10
    pq.write_table(pa.table({"the\nquestion": wrong, "answer": [1] * 20}), tmp_path / "c.parquet")
    plain = [b"a line \x00", b"\xf0\x28\x8c\x28", b"{}", "人\u2028民".encode(), b"<|im_end|>"] * 20
    (tmp_path / "d.txt").write_bytes(b"\n".join(plain))
    asked = {"prompt": "the\nquestion", "completion": "answer"}
    files = {
        name: Source(path=str(tmp_path / name), columns=asked, format="prompt_completion")
        for name in ("a.csv", "b.parquet", "c.parquet")
    } | {"d.txt": Source(path=str(tmp_path / "d.txt"))}
    chosen = recipe(list(files.values()), max_failed=1.0, deduplicate="none")
    before = crashed()
    prepared, told = run(chosen, base, tmp_path)
    assert crashed() == before
    assert not any("\n" in line for line in told)
    sizes = {"a.csv": len(records), "b.parquet": 120, "c.parquet": 20, "d.txt": 100}
    check_accounted(prepared, sizes)
    aside = set_aside(prepared)
    expected: dict[Place, str] = {
        ("a.csv", n): reason for n, (reason, _) in enumerate(records, 1) if reason
    }
    expected |= {("b.parquet", n): "no text" for n, text in enumerate(texts, 1) if text is None}
    expected |= {("c.parquet", n): "no text" for n in range(1, 21)}
    expected |= {("d.txt", n): "not UTF-8" for n in range(2, 100, 5)}
    expected |= {("d.txt", n): "no supervised token" for n in range(5, 101, 5)}
    assert {place: line["reason"] for place, line in aside.items()} == expected
    for (name, number), line in aside.items():
        if name == "a.csv" and line["reason"] != "empty":
            text = base64.b64decode(line["base64"]) if "base64" in line else line["text"].encode()
            assert text == records[number - 1][1].removesuffix(b"\n")
        elif name == "c.parquet":
            value = json.loads(line["text"])["the\nquestion"]
            assert base64.b64decode(value["base64"]) == wrong[number - 1]
    learnt = said(prepared, style("chatml"), "train")
    kept = [record for reason, record in records if not reason]
    [answers] = {
        tuple(learnt[name, n][0][1] for n, (reason, _) in enumerate(records, 1) if not reason)
        for name in ["a.csv"]
    }
    parsed = csv.reader(io.StringIO(b"".join(kept).decode(), newline=""))
    assert answers == tuple(answer + END for _, answer in parsed)
    assert len(places(prepared, "train")) == sum(sizes.values()) - len(aside)


def test_too_many_stop_it_and_are_shown(base: Path, tmp_path: Path) -> None:
    """The three commonest reasons with their number, and rows of each by file and line."""
    rows: list[bytes] = []
    for number in range(200):
        rows.append(as_bytes(chat("a", f"b {number}")))
        if number < 40:
            rows.append(b'{"torn": ')
        if number < 30:
            rows.append(as_bytes({"messages": "hello"}))
        if number < 20:
            rows.append(b'{"messages": "\xff"}')
        if number < 10:
            rows.append(b"7")
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(rows))
    chosen = recipe([Source(path=str(file), format="messages")], max_failed=0.3)
    with pytest.raises(DataError) as raised:
        run(chosen, base, tmp_path)
    first, *others, last = str(raised.value).split("\n")
    assert first == (
        "data.max_failed = 0.3: 100 of 300 rows cannot be used (33.3%). The commonest reasons:"
    )
    counts = [line.strip() for line in others if not line.startswith("    ")]
    assert counts == ["40 not JSON", "30 no messages", "20 not UTF-8"]
    examples = [line.strip() for line in others if line.startswith("    ")]
    assert len(examples) == 9
    assert examples[0].startswith(f"{file}, row 2: Expecting value: line 1 column 10")
    assert examples[3] == f"{file}, row 3: messages is str"
    assert examples[6] == f"{file}, row 4: invalid start byte at byte 14"
    assert last == "Mend the files, name their columns in data.columns, or raise the share"
    assert not list((tmp_path / "prepared").glob("*"))
    # What was prepared with a share that is enough is refused with one that is not, and unread.
    enough = recipe([Source(path=str(file), format="messages")], max_failed=0.4)
    assert run(enough, base, tmp_path)[0].fresh
    with pytest.raises(DataError, match=r"data.max_failed = 0.3: 100 of 300 rows"):
        run(chosen, base, tmp_path)
    assert not run(enough, base, tmp_path)[0].fresh
