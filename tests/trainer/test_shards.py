"""What is written into shards is read back, and reading any position maps no more than it needs."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recipes.errors import DataError
from support import tiny
from trainer import shard_writer, split
from trainer.ahead import Ahead, Reader, Turn
from trainer.order import Order
from trainer.shard_writer import write_shard
from trainer.shards import IGNORED, SCHEMA, Shard, learnt_of, runs_of
from trainer.split import Split, open_split, write_index


def many_shards(folder: Path, count: int) -> Split:
    """Shards of three rows each; row r holds the samples 2r and 2r + 1."""
    made = tiny.samples(6)
    entries = []
    for number in range(count):
        rows = [tiny.row(made[2 * i : 2 * i + 2], 6 * number + 2 * i) for i in range(3)]
        entries.append(write_shard(folder / f"shard_{number:05d}.arrow", rows))
    write_index(folder, entries)
    return Split(folder, entries)


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards as they are mapped."""
    found: list[str] = []

    def counted(file: Path) -> Shard:
        found.append(file.name)
        return Shard(file)

    monkeypatch.setattr(split, "Shard", counted)
    return found


@pytest.mark.parametrize(
    ("labels", "runs"),
    [
        ([], []),
        ([IGNORED] * 3, [3]),
        ([IGNORED, 5, 6, IGNORED, 7], [1, 2, 1, 1]),
        ([5, IGNORED], [0, 1, 1]),
    ],
)
def test_runs_say_what_labels_say(labels: list[int], runs: list[int]):
    assert runs_of(labels).tolist() == runs
    assert learnt_of(runs_of(labels)).tolist() == [label != IGNORED for label in labels]


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shard_writer, "_BATCH_TOKENS", 50)  # several record batches
    made = tiny.samples(12)
    rows = [tiny.row(made[i : i + 2], i) for i in range(0, 12, 2)]
    rows[2] |= {"sources": [3, 1], "images": ["a.png", "b.png"]}
    rows[5] |= {"labels": [], "token_types": [0] * 4, "label_set": [0, 2], "label": 7}
    found = tiny.split_of(tmp_path / "split", rows)
    reader = pa.ipc.open_file(pa.memory_map(str(tmp_path / "split" / "shard_00000.arrow")))
    assert reader.num_record_batches > 2
    assert reader.schema == SCHEMA
    assert reader.read_all()["images"].to_pylist()[2] == ["a.png", "b.png"]
    for index, row in enumerate(rows):
        read = found[index]
        for name in ("input_ids", "labels", "lengths", "samples"):
            assert getattr(read, name).tolist() == row[name], name
        assert read.supervised == row["supervised"] == found.supervised[index]
        assert found.tokens[index] == len(row["input_ids"])
        assert found.samples(index) == row["samples"]
    assert found[2].sources.tolist() == [3, 1]
    assert found[0].sources.tolist() == [0, 0]
    assert (found[5].token_types.tolist(), found[5].label_set.tolist()) == ([0] * 4, [0, 2])
    assert (found[5].label, found[0].label, found[0].choice) == (7, -1, -1)
    assert found.samples_per_row.tolist() == [2] * 6


def test_the_entry_of_a_shard_counts_and_hashes_what_was_written(tmp_path: Path):
    made = tiny.samples(4)
    file = tmp_path / "one.arrow"
    entry = write_shard(file, [tiny.row(made[:2], 0), tiny.row(made[2:], 2)])
    assert entry == {
        "file": "one.arrow",
        "rows": 2,
        "samples": 4,
        "tokens": sum(len(ids) for ids, _ in made),
        "supervised": sum(label != IGNORED for _, labels in made for label in labels),
        "bytes": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    for name, digest in write_index(tmp_path, [entry]).items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest


def test_writing_takes_the_memory_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shard_writer, "_BATCH_TOKENS", 2**13)
    ids = np.arange(1000, dtype=np.int32)
    row = tiny.row([([1], [1])], 0) | {"input_ids": ids, "labels": ids, "supervised": 1000}

    def peak_bytes(count: int) -> int:
        tracemalloc.start()
        entry = write_shard(tmp_path / "long.arrow", (row for _ in range(count)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert entry["tokens"] == 1000 * count
        return peak

    assert peak_bytes(2000) < 1.5 * peak_bytes(20)


def test_a_late_position_costs_what_the_first_does(tmp_path: Path, mapped: list[str]):
    """Of a thousand shards a rank that goes on maps those of the rows it computes, and no other."""
    found = many_shards(tmp_path, 1000)
    order = Order(num_rows=3000, seed=1, global_batch_size=8, micro_batch_size=4)
    mapped.clear()
    assert mapped == []
    reader = Reader(split=found, order=order, rank=1, num_workers=2, pad_token_id=0)
    turn = next(reader.turns(3 * 375 + 200, 10_000))  # in the fourth epoch
    rows = order.micro_batch(3 * 375 + 200, 1)
    assert mapped == [f"shard_{row // 3:05d}.arrow" for row in rows]
    assert turn.batch.num_tokens == sum(int(found.tokens[row]) for row in rows)
    assert found.samples(2999) == [5998, 5999]
    assert len(mapped) == 4  # nor do the samples of a row


def test_of_many_shards_some_are_mapped_at_once(
    tmp_path: Path, mapped: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(split, "_MAPPED_SHARDS", 2)
    found = many_shards(tmp_path, 3)
    mapped.clear()
    rows = [found[row] for row in (0, 3, 1, 6, 2, 4)]
    assert [int(name[6:11]) for name in mapped] == [0, 1, 2, 1]
    # A row outlives the map of its shard.
    assert rows[0].input_ids.tolist() == tiny.samples(1)[0][0] + tiny.samples(2)[1][0]


def test_an_index_of_other_shards_and_torn_files_are_refused(tmp_path: Path):
    folder = tiny.write_prepared(tmp_path / "prepared", [tiny.row(tiny.samples(2), 0)])
    other = tmp_path / "other"
    other.mkdir()
    many_shards(other, 1)
    (other / "tokens.npy").rename(folder / "train" / "tokens.npy")
    with pytest.raises(DataError, match="its index is of 3 rows, its shards have 1"):
        open_split(folder, "train")
    (folder / "train" / "tokens.npy").unlink()
    with pytest.raises(DataError, match=r"tokens\.npy: cannot be read.*prepare it again"):
        open_split(folder, "train")
    shard = other / "shard_00000.arrow"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match="shard cannot be read"):
        Shard(shard)


def test_reading_ahead_keeps_the_order_and_passes_errors_on(tmp_path: Path):
    found = many_shards(tmp_path, 20)
    order = Order(num_rows=60, seed=1, global_batch_size=6, micro_batch_size=2)
    reader = Reader(split=found, order=order, rank=0, num_workers=2, pad_token_id=0)
    expected = list(reader.turns(2, 12))
    assert [turn.number for turn in expected] == [0, 2] * 10
    with Ahead(reader.turns(2, 12)) as ahead:
        for turn in expected:
            read = ahead.next()
            assert read.number == turn.number
            assert read.batch.input_ids.tolist() == turn.batch.input_ids.tolist()

    def broken() -> Iterator[Turn]:
        yield expected[0]
        raise DataError("gone")

    with Ahead(broken()) as ahead:
        assert ahead.next() is expected[0]
        with pytest.raises(DataError, match="gone"):
            ahead.next()
    with Ahead(reader.turns(0, 1000)) as ahead:  # left in the middle: the thread ends
        ahead.next()
    assert not ahead.is_running
