"""What the ledger proves: whether each epoch saw each row, and each sample, once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from recipes.errors import DataError
from trainer.ledger import Account, Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    number: int  # counted from 1
    rows: int
    """Rows seen so far."""
    samples: int
    whole: bool
    """All its steps are done."""
    repeated: Sequence[int]
    """Samples of rows seen more than once. That rows hold a sample twice, as weights and long texts
    that are split make it, is how the data is."""
    lost: int
    """Rows that its steps should have seen and did not, those of skipped batches not counted."""
    skipped: int
    """Rows left out on purpose, with their batches."""


def epochs_of(account: Account) -> list[Epoch]:
    """The epochs that a run has seen, from its ledger alone.

    Batch b holds the positions [b·B, (b+1)·B) of the endless sequence of epochs; what an epoch
    should have seen follows from the batches that were done, or left out, up to the last. Steps are
    read one after another, and only what the epoch under way has seen is kept.

    Raises `DataError` when a step goes back to an earlier batch.
    """
    num_rows = account.num_rows
    found: list[Epoch] = []
    seen = _Seen(0, num_rows)
    end = 0  # of the last batch
    for entry in account.entries:
        first, size = entry.batch * len(entry.rows), len(entry.rows)
        if first < end:
            raise DataError(f"ledger: step {entry.step} goes back to batch {entry.batch}")
        for begin, stop in chain(_cut(end, first, num_rows), _cut(first, first + size, num_rows)):
            if begin >= seen.end:
                found.append(seen.closed(begin))
                seen = _Seen(seen.number + 1, num_rows)
            if begin < first:
                seen.skipped += stop - begin
            else:
                part = slice(begin - first, stop - first)
                seen.take(entry.rows[part], entry.samples[part])
        end = first + size
    return [*found, seen.closed(end)] if end else found


def _cut(begin: int, end: int, num_rows: int) -> Iterator[tuple[int, int]]:
    """A range of positions, cut where epochs end."""
    while begin < end:
        stop = min(end, (begin // num_rows + 1) * num_rows)
        yield begin, stop
        begin = stop


class _Seen:
    """One epoch while its steps are read."""

    def __init__(self, number: int, num_rows: int) -> None:
        self.number = number  # counted from 0
        self.begin, self.end = number * num_rows, (number + 1) * num_rows
        self.skipped = 0
        self._rows: list[npt.NDArray[np.int64]] = []
        self._samples: list[npt.NDArray[np.int64]] = []
        self._rows_of_samples: list[npt.NDArray[np.int64]] = []

    def take(self, rows: Sequence[int], samples: Sequence[Sequence[int]]) -> None:
        self._rows.append(np.array(rows, np.int64))
        self._samples.append(np.fromiter(chain.from_iterable(samples), np.int64))
        self._rows_of_samples.append(np.repeat(self._rows[-1], [len(ids) for ids in samples]))

    def closed(self, end: int) -> Epoch:
        """What became of it; the run has come to the position `end`."""
        rows, times = np.unique(_joined(self._rows), return_counts=True)
        samples = _joined(self._samples)
        again = np.isin(_joined(self._rows_of_samples), rows[times > 1])
        return Epoch(
            number=self.number + 1,
            rows=len(rows),
            samples=len(np.unique(samples)),
            whole=self.end <= end,
            repeated=np.unique(samples[again]).tolist(),
            lost=min(self.end, end) - self.begin - self.skipped - len(rows),
            skipped=self.skipped,
        )


def _joined(parts: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def find_sample(entries: Iterable[Entry], sample: int) -> list[Entry]:
    """The steps that consumed a sample."""
    return [entry for entry in entries if any(sample in ids for ids in entry.samples)]
