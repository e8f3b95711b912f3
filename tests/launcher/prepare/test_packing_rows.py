"""Samples that share a row are in it as they were alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from launcher.prepare.stages.packing import pack, packed
from trainer import shard_writer
from trainer.shard_writer import BatchBuilder, write_batches
from trainer.shards import IGNORED, Row, Shard


def made_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of one sample each, whose first token is ignored and the others by chance, the last one
    too."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        ids = random.integers(1, 1000, random.integers(1, 30)).tolist()
        learnt = random.random(len(ids)) < 0.6
        labels = [
            IGNORED,
            *(i if yes else IGNORED for i, yes in zip(ids[1:], learnt[1:], strict=True)),
        ]
        supervised = sum(label != IGNORED for label in labels)
        rows.append(
            {
                "input_ids": ids,
                "labels": labels,
                "lengths": [len(ids)],
                "samples": [number],
                "sources": [number % 3],
                "supervised": supervised,
            }
        )
    return rows


def in_batches(rows: list[dict[str, Any]], size: int) -> list[pa.RecordBatch]:
    found = []
    for begin in range(0, len(rows), size):
        builder = BatchBuilder()
        for row in rows[begin : begin + size]:
            builder.add(row)
        found.append(builder.batch())
    return found


def read(file: Path, batches: list[pa.RecordBatch]) -> list[Row]:
    write_batches(file, batches)
    shard = Shard(file)
    return [shard[place] for place in range(len(shard))]


@pytest.mark.parametrize("batch_tokens", [1, 100, 2**20])
def test_packed_rows_are_their_samples_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_tokens: int
):
    monkeypatch.setattr(shard_writer, "_BATCH_TOKENS", batch_tokens)
    rows = made_rows(300)
    found = read(tmp_path / "packed.arrow", list(packed(in_batches(rows, 70), 40)))
    packs = pack([len(row["input_ids"]) for row in rows], 40)
    assert len(found) == len(packs) < len(rows)
    for row, members in zip(found, packs, strict=True):
        for name in ("input_ids", "labels", "lengths", "samples", "sources"):
            together = [value for member in members for value in rows[member][name]]
            assert getattr(row, name).tolist() == together, name
        assert row.supervised == sum(rows[member]["supervised"] for member in members)
        assert (row.label, row.choice, row.answer) == (-1, -1, -1)
        # Runs of one kind never follow one another, so equal labels are equal bytes.
        assert min(row.runs) > 0


def test_batches_end_where_a_writer_of_rows_ends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shard_writer, "_BATCH_TOKENS", 100)
    rows = made_rows(50, seed=1)
    shard_writer.write_shard(tmp_path / "rows.arrow", rows)
    reader = pa.ipc.open_file(tmp_path / "rows.arrow")
    sizes = [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]
    ends = shard_writer.batch_ends(np.array([len(row["input_ids"]) for row in rows]))
    assert np.diff([0, *ends]).tolist() == sizes


def test_choices_and_images_stay_alone(tmp_path: Path):
    rows = made_rows(6)
    rows[1] |= {"choice": 0, "answer": 1}
    rows[4] |= {"images": ["a.png"]}
    found = read(tmp_path / "packed.arrow", list(packed(in_batches(rows, 4), 200)))
    assert [row.samples.tolist() for row in found] == [[0, 2, 3, 5], [1], [4]]
    assert (found[1].choice, found[1].answer) == (0, 1)


def test_nothing_but_choices(tmp_path: Path):
    rows = [row | {"choice": 0, "answer": 0} for row in made_rows(3)]
    found = read(tmp_path / "alone.arrow", list(packed(in_batches(rows, 2), 200)))
    assert [row.samples.tolist() for row in found] == [[0], [1], [2]]
