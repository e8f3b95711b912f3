"""Rows dealt to groups are the same however often they were written down meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.prepare.stages.dealt import dealing, read_group
from trainer.shard_writer import BatchBuilder, write_batches
from trainer.shards import SCHEMA

GROUPS = 3


def row(number: int) -> dict[str, Any]:
    ids = [number + place for place in range(number % 5 + 2)]
    return {
        "input_ids": ids,
        "labels": [-100, *ids[1:]],
        "lengths": [len(ids)],
        "samples": [number],
        "supervised": len(ids) - 1,
        "images": ["a.png"] if number % 7 == 0 else [],
    }


@pytest.mark.parametrize("held_tokens", [1, 100, 10**9])
def test_the_batches_of_a_group_are_as_if_written_at_once(tmp_path: Path, held_tokens: int):
    expected = [BatchBuilder() for _ in range(GROUPS)]
    with dealing(tmp_path / "rows.arrow", GROUPS, held_tokens) as dealt:
        for number in range(50):
            group = number % 2  # nothing comes to the last one
            expected[group].add(row(number))
            dealt.add(group, row(number))
    for group, rows in enumerate(expected):
        found = read_group(tmp_path / "rows.arrow", group)
        assert found.schema.equals(SCHEMA, check_metadata=True)
        once = rows.batch()
        assert found.equals(once)
        entry = write_batches(tmp_path / "found.arrow", [found])
        assert entry == write_batches(tmp_path / "once.arrow", [once]) | {"file": "found.arrow"}


def test_what_failed_leaves_no_file(tmp_path: Path):
    def fails() -> None:
        with dealing(tmp_path / "rows.arrow", GROUPS, 1) as dealt:
            dealt.add(0, row(1))
            raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        fails()
    assert list(tmp_path.iterdir()) == []
