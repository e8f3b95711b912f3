"""How often samples are taken, what sources are called, and how rows meet across units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from launcher.prepare.sources import source
from launcher.prepare.sources.units import unit_bytes
from launcher.prepare.stages.judged import ranges
from launcher.prepare.stages.mixture import Copies, names, takes
from launcher.prepare.stages.runs import PREFIXES, counts, prefixes, read_run, write_run
from launcher.prepare.stages.tokenized import BLOCK, blocks
from recipes.data import Data, Source


def taken(have: int, take: int, parts: list[int]) -> list[int]:
    """Copies of each sample of a source whose units have so many samples."""
    assert sum(parts) == have
    found, first = [], 0
    for part in parts:
        copies = Copies(have=have, take=take, first=first)
        found += [copies.of(place) for place in range(part)]
        first += part
    return found


@pytest.mark.parametrize("take", [0, 1, 5, 9, 10, 11, 25, 30])
def test_exactly_so_many_are_taken_evenly(take: int):
    one = taken(10, take, [10])
    assert sum(one) == take
    assert max(one) - min(one) <= 1
    # Whatever units the source is cut into.
    assert taken(10, take, [3, 0, 4, 3]) == one


def test_weights_are_met_in_counts():
    # 3 : 1, and nothing of the first is lost: the second is repeated.
    assert takes([300, 10], [3.0, 1.0], "repeat") == [300, 100]
    # No sample twice: the first is cut.
    assert takes([300, 10], [3.0, 1.0], "cut") == [30, 10]
    assert takes([100, 100, 100], [0.1, 0.2, 0.7], "cut") == [14, 29, 100]
    # Sources without a weight are taken as they are.
    assert takes([300, 10, 7], [3.0, 1.0, None], "cut") == [30, 10, 7]
    assert takes([5, 7], [None, None], "repeat") == [5, 7]
    assert takes([5, 7], [None, 2.0], "repeat") == [5, 7]
    # One that has nothing left decides nothing.
    assert takes([0, 10, 20], [1.0, 1.0, 1.0], "cut") == [0, 10, 10]
    assert takes([], [], "repeat") == []


def test_sources_are_told_apart():
    given = [Source(path=path) for path in ("a/train.jsonl", "b/train.jsonl", "s3://c/d/")]
    assert names([*given, Source(path="x", name="train")]) == ["train", "train 2", "d", "train"]


def test_records_of_a_range_of_keys(tmp_path: Path):
    chance = np.random.default_rng(0)
    keys = chance.integers(0, 50, 1000)
    records = np.zeros(1000, [("key", "<i8"), ("place", "<u4")])
    records["key"], records["place"] = keys, np.arange(1000)
    write_run(tmp_path / "run", keys, records, 50)
    whole = read_run(tmp_path / "run", records.dtype, 0, 50)
    assert sorted(whole["place"].tolist()) == list(range(1000))
    part = read_run(tmp_path / "run", records.dtype, 10, 13)
    assert part["place"].tolist() == [
        n for key in (10, 11, 12) for n in np.flatnonzero(keys == key)
    ]
    assert len(read_run(tmp_path / "run", records.dtype, 7, 7)) == 0
    assert counts(tmp_path / "run").tolist() == np.bincount(keys, minlength=50).tolist()
    write_run(tmp_path / "none", keys[:0], records[:0], 5)
    assert len(read_run(tmp_path / "none", records.dtype, 0, 5)) == 0


def test_ranges_hold_all_hashes_once():
    assert prefixes(np.array([0, 2**52, 2**64 - 1], np.uint64)).tolist() == [0, 1, PREFIXES - 1]
    for records, parts in ((0, 1), (10, 1), (11, 2), (35, 4), (10**9, PREFIXES)):
        found = ranges(records, 3, per_task=10)
        assert len(found) == parts
        assert [part.begin for part in found[1:]] == [part.end for part in found[:-1]]
        assert (found[0].begin, found[-1].end) == (0, PREFIXES)


def test_every_unit_is_in_one_block():
    assert blocks(3) == [[0, 1, 2]]
    found = blocks(3 * BLOCK + 5)
    assert sorted(unit for block in found for unit in block) == list(range(3 * BLOCK + 5))
    assert [len(block) for block in found] == [BLOCK] * 3 + [5]
    # Not the neighbours: sources are mixed.
    assert max(found[0]) > 2 * BLOCK
    assert found == blocks(3 * BLOCK + 5)


@pytest.mark.parametrize(
    ("unit_mb", "mib", "found"),
    [
        *[(None, 1, 1), (None, 16, 1), (None, 17, 2), (None, 128, 8), (None, 160_000, 8)],
        *[(None, 160_001, 9), (None, 2**20, 53), (3, 1, 3), (3, 2**20, 3)],
    ],
)
def test_units_are_enough_to_share_and_never_too_many(unit_mb: int | None, mib: int, found: int):
    spec = Source(path="x")
    file = source.Source(
        address="/x",
        split="train",
        spec=spec,
        entry=0,
        kind="text",
        compression=None,
        bytes=mib * 2**20,
        stamp="",
    )
    assert unit_bytes(Data(train=[spec], unit_mb=unit_mb), [file]) == found * 2**20
