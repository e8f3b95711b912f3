"""What the ledger proves: whether each epoch saw each row, and each sample, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

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
    """Samples seen more than once."""
    lost: int
    """Rows that its steps should have seen and did not, those of skipped batches not counted."""
    skipped: int
    """Rows left out on purpose, with their batches."""


def epochs_of(account: Account) -> list[Epoch]:
    """The epochs that a run has seen, from its ledger alone.

    Batch b holds the positions [b·B, (b+1)·B) of the endless sequence of epochs; what an epoch
    should have seen follows from the batches that were done, or left out, up to the last.
    """
    entries, num_rows = account.entries, account.num_rows
    if not entries:
        return []
    batch_size = len(entries[0].rows)
    done = {entry.batch for entry in entries}
    end = (max(done) + 1) * batch_size
    skipped = Counter(
        position // num_rows
        for batch in range(max(done) + 1)
        if batch not in done
        for position in range(batch * batch_size, (batch + 1) * batch_size)
    )
    rows: dict[int, Counter[int]] = {}
    samples: dict[int, Counter[int]] = {}
    for entry in entries:
        for place, (row, ids) in enumerate(zip(entry.rows, entry.samples, strict=True)):
            epoch = (entry.batch * batch_size + place) // num_rows
            rows.setdefault(epoch, Counter())[row] += 1
            samples.setdefault(epoch, Counter()).update(ids)
    return [
        Epoch(
            number=epoch + 1,
            rows=len(rows.get(epoch, ())),
            samples=len(samples.get(epoch, ())),
            whole=(epoch + 1) * num_rows <= end,
            repeated=sorted(i for i, n in samples.get(epoch, Counter()).items() if n > 1),
            lost=min(num_rows, end - epoch * num_rows) - skipped[epoch] - len(rows.get(epoch, ())),
            skipped=skipped[epoch],
        )
        for epoch in range((end + num_rows - 1) // num_rows)
    ]


def find_sample(entries: Sequence[Entry], sample: int) -> list[Entry]:
    """The steps that consumed a sample."""
    return [entry for entry in entries if any(sample in ids for ids in entry.samples)]
