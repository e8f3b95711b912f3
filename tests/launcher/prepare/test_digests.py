"""Digests of sources that are read once, and failures that are too many."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adapters.object_store import ObjectStore
from launcher.prepare.failures import Failures
from launcher.prepare.sources.digests import Digests, hash_here
from launcher.prepare.sources.source import Source, find_sources
from recipes import data
from recipes.errors import DataError


def source(file: Path) -> Source:
    [found] = find_sources(data.Data(train=[data.Source(path=str(file))]), file.parent)
    return found


class Hashing:
    """Counts what is read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, sources: Sequence[Source]) -> list[str]:
        self.read += [Path(one.address).name for one in sources]
        return hash_here(sources)


def test_a_source_is_read_once(tmp_path: Path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("one")
    second.write_text("two")
    past = time.time_ns() - 10**10
    for file in (first, second):
        os.utime(file, ns=(past, past))
    digests, hashing = Digests(folder=tmp_path / "digests"), Hashing()

    def entries(*, verify: bool = False) -> list[str]:
        sources = [source(first), source(second)]
        known = [None, None] if verify else digests.look(sources)
        found = digests.of(sources, known, hashing)
        return [entry["sha256"] for entry in found]

    expected = [hashlib.sha256(text).hexdigest() for text in (b"one", b"two")]
    assert entries() == expected
    assert hashing.read == ["a.txt", "b.txt"]
    assert entries() == expected
    assert hashing.read == ["a.txt", "b.txt"]
    # Written to, it is read again; the other is not.
    second.write_text("TWO")
    os.utime(second, ns=(past + 1, past + 1))
    assert entries() == [expected[0], hashlib.sha256(b"TWO").hexdigest()]
    assert hashing.read == ["a.txt", "b.txt", "b.txt"]
    # A change that leaves size and time as they were is seen by reading all.
    first.write_text("ONE")
    os.utime(first, ns=(past, past))
    assert entries()[0] == expected[0]
    assert entries(verify=True)[0] == hashlib.sha256(b"ONE").hexdigest()
    assert entries()[0] == hashlib.sha256(b"ONE").hexdigest()


def test_what_was_just_written_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It could be written again before the clock of the file system ticks."""
    file = tmp_path / "a.txt"
    file.write_text("one")
    written = file.stat().st_mtime
    monkeypatch.setattr(time, "time", lambda: written + 1)
    digests, hashing = Digests(folder=tmp_path / "digests"), Hashing()
    for _ in range(2):
        digests.of([source(file)], digests.look([source(file)]), hashing)
    assert hashing.read == ["a.txt", "a.txt"]
    monkeypatch.setattr(time, "time", lambda: written + 10)
    for _ in range(2):
        digests.of([source(file)], digests.look([source(file)]), hashing)
    assert hashing.read == ["a.txt"] * 3


def test_an_object_is_remembered_once_its_store_would_tell_of_a_change(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    """Stores tell the second in which an object was written, and no more."""
    address = f"{bucket}/rows/a.txt"

    def put(content: bytes) -> Source:
        ObjectStore(f"{bucket}/rows").put("a.txt", content)
        [found] = find_sources(data.Data(train=[data.Source(path=address)]), tmp_path)
        return found

    digests = Digests(folder=tmp_path / "digests")
    begin = time.time()
    first = put(b"one")
    assert begin < first.settled < time.time() + 20
    monkeypatch.setattr(time, "time", lambda: first.settled - 1)
    digests.of([first], digests.look([first]), hash_here)
    assert digests.look([first]) == [None]
    second = put(b"two")  # of the same size, and perhaps in the same second
    [entry] = digests.of([second], digests.look([second]), hash_here)
    assert entry["sha256"] == hashlib.sha256(b"two").hexdigest()
    monkeypatch.setattr(time, "time", lambda: second.settled + 1)
    digests.of([second], [None], hash_here)
    assert digests.look([second]) == [entry["sha256"]]


def test_a_torn_note_is_no_note(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_text("one")
    os.utime(file, (1, 1))
    digests = Digests(folder=tmp_path / "digests")
    digests.of([source(file)], [None], hash_here)
    [note] = (tmp_path / "digests").iterdir()
    note.write_text('{"sha')
    assert digests.known(source(file)) is None


def report(rows: int, **failed: int) -> dict[str, Any]:
    examples = {reason: [f"f.jsonl, row {n + 1}: x" for n in range(2)] for reason in failed}
    return {"rows": rows, "failed": failed, "examples": examples}


def test_too_many_failures_stop():
    failures = Failures(0.1)
    failures.add(report(1000, late=100))
    failures.check()
    failures.add(report(10, late=2))
    with pytest.raises(DataError) as caught:
        failures.check()
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "data.max_failed = 0.1: 102 of 1,010 rows cannot be used (10.1%). The commonest reasons:"
    )
    assert lines[1:4] == ["  102 late", "    f.jsonl, row 1: x", "    f.jsonl, row 2: x"]


def test_of_many_rows_they_stop_at_once():
    failures = Failures(0.5)
    failures.add(report(9_000, a=5_000))
    with pytest.raises(DataError, match="5,900 of 10,900 rows"):
        failures.add(report(1_900, a=100, b=500, c=200, d=100))
    assert failures.reasons.most_common(1) == [("a", 5100)]


def test_all_of_them_are_told_otherwise():
    """Nothing is left to train on, which says more."""
    failures = Failures(0.0)
    failures.add(report(5, a=5))
    failures.check()
