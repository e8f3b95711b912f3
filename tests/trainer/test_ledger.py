"""What the ledger says after any number of attempts."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.errors import DataError
from trainer.ledger import Entry, Ledger, read_ledger
from trainer.spikes import RECENT, LossWatch


def entry(step: int, batch: int | None = None) -> Entry:
    number = step - 1 if batch is None else batch
    return Entry(step=step, batch=number, rows=[number], samples=[[number * 10, number * 10 + 1]])


def write(folder: Path, after: int, steps: range, **more: int) -> None:
    ledger = Ledger(folder, resume_after=after, num_rows=10)
    for step in steps:
        ledger.append(entry(step, **more))


def test_later_attempts_replace_what_was_done_again(tmp_path: Path):
    write(tmp_path, 0, range(1, 8))
    write(tmp_path, 4, range(5, 6), batch=9)
    write(tmp_path, 5, range(6, 9))
    account = read_ledger(tmp_path)
    entries = account.entries
    assert (account.attempts, account.redone, account.num_rows) == (3, 3, 10)
    assert [found.step for found in entries] == list(range(1, 9))
    assert entries[4].batch == 9
    assert entries[0] == entry(1)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path):
    write(tmp_path, 0, range(1, 4))
    file = tmp_path / "attempt_0001.jsonl"
    file.write_text(file.read_text()[:-9])
    assert [found.step for found in read_ledger(tmp_path).entries] == [1, 2]
    (tmp_path / "attempt_0002.jsonl").write_text("")  # killed before its first line
    write(tmp_path, 2, range(3, 5))
    assert [found.step for found in read_ledger(tmp_path).entries] == [1, 2, 3, 4]


def test_a_gap_is_told(tmp_path: Path):
    write(tmp_path, 0, range(1, 3))
    write(tmp_path, 4, range(5, 6))
    with pytest.raises(DataError, match="step 3 is missing"):
        read_ledger(tmp_path)


def test_a_spike_is_measured_against_the_median():
    watch = LossWatch(3.0, [])
    assert all(watch.why_bad(1.0) is None for _ in range(RECENT - 1))
    assert watch.why_bad(50.0) is None  # too few to compare with
    assert watch.why_bad(2.9) is None
    why = watch.why_bad(3.1)
    assert why is not None
    assert "spike_factor = 3 times 1" in why
    assert watch.recent[-1] == 2.9
    assert LossWatch(3.0, watch.recent).why_bad(3.1) == why


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_what_is_no_number_is_bad_without_a_factor(loss: float):
    assert LossWatch(None, []).why_bad(loss) is not None
    assert LossWatch(None, [1.0] * RECENT).why_bad(1e9) is None
