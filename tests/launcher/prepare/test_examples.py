"""Which rows that failed are kept as examples."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from launcher.prepare import examples
from launcher.prepare.examples import commonest, examples_of, line_of
from launcher.prepare.failures import Failures, UselessRowsError


def unit(folder: Path, number: int, rows: list[tuple[str, dict[str, str]]]) -> dict[str, Any]:
    """Leave the rows of a unit that were set aside, with their reasons; its report."""
    lines = [
        {"file": "/data/a.jsonl", "row": 100 * number + place, "reason": reason, "detail": ""}
        | told
        for place, (reason, told) in enumerate(rows, 1)
    ]
    (folder / f"{number:05d}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    reasons = [reason for reason, _ in rows]
    return {"unit": number, "rejected": {reason: reasons.count(reason) for reason in reasons}}


def test_the_first_three_of_each_reason_in_the_order_of_the_sources(tmp_path: Path):
    torn = [("not JSON", {"text": "{" + "x" * 1000})] * 2
    raw = {"base64": base64.b64encode(b"a\xffb").decode()}
    tokenized = [
        unit(tmp_path, 0, [("duplicate", {"sample": "{}"}), *torn]),
        unit(tmp_path, 1, [("not UTF-8", raw), *torn, ("characters: too few", {"text": "short"})]),
        # Nothing of this is wanted any more: it is not even opened.
        {"unit": 2, "rejected": {"not JSON": 5, "duplicate": 1}},
    ]
    cleaned = [{"dropped": {}}, {"dropped": {"characters: too few": 1}}, {"dropped": {}}]
    found = examples_of(tmp_path, cleaned, tokenized)
    assert {reason: [one["row"] for one in told] for reason, told in found.items()} == {
        "not JSON": [2, 3, 102],
        "not UTF-8": [101],
    }
    assert found["not JSON"][0]["text"] == "{" + "x" * 199
    assert line_of(found["not UTF-8"][0]) == r"a.jsonl row 101: a\xffb"
    counts = {"not JSON": 9, "not UTF-8": 1}
    assert [reason for reason, _ in commonest(found, counts)] == ["not JSON", "not UTF-8"]


def test_not_all_of_a_large_unit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(examples, "_LOOKED_AT_BYTES", 10_000)
    rows = [("duplicate", {"sample": "x" * 1000})] * 50
    report = unit(tmp_path, 0, [("no text", {"text": "{}"}), *rows, ("no text", {"text": "{}"})])
    found = examples_of(tmp_path, [{"dropped": {}}], [report])
    assert [one["row"] for one in found["no text"]] == [1]


def test_a_share_that_is_asked_for_later_is_told_with_examples():
    row = {"file": "s3://b/a.csv", "row": 1234, "detail": "3 fields of 2", "text": "a\n,b,c"}
    manifest = {
        "rows_read": 10,
        "failed": {"not csv": 2},
        "examples": {"not csv": [row]},
    }
    with pytest.raises(UselessRowsError, match=r"a.csv row 1,234: 3 fields of 2: a ,b,c\n"):
        Failures.of(manifest, 0.1).check()
    del manifest["examples"]  # as in those that were made before
    with pytest.raises(UselessRowsError, match=r"2 not csv\nMend"):
        Failures.of(manifest, 0.1).check()
