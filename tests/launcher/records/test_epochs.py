"""What a ledger proves, and what it does not."""

from __future__ import annotations

import dataclasses

from launcher.records.epochs import epochs_of, find_sample
from trainer.ledger import Account, Entry
from trainer.order import Order


def account(steps: int, *, skipped: tuple[int, ...] = (), num_rows: int = 10) -> Account:
    """A ledger as training writes it; every row packs two samples."""
    order = Order(
        num_rows=num_rows, seed=3, global_batch_size=4, micro_batch_size=1, skipped=skipped
    )
    entries = [
        Entry(
            step=step + 1,
            batch=order.batch(step),
            rows=order.rows(step),
            samples=[[row * 2, row * 2 + 1] for row in order.rows(step)],
        )
        for step in range(steps)
    ]
    return Account(entries=entries, num_rows=num_rows, attempts=1, redone=0)


def test_every_epoch_saw_each_sample_once():
    first, second, third = epochs_of(account(6))
    assert (first.rows, first.samples, first.whole) == (10, 20, True)
    assert (second.rows, second.samples, second.whole) == (10, 20, True)
    assert (third.rows, third.whole) == (4, False)
    assert not any(e.repeated or e.lost or e.skipped for e in (first, second, third))


def test_a_sample_that_comes_twice_and_one_that_is_lost_are_found():
    whole = account(5)
    entry = whole.entries[1]
    rows = [whole.entries[0].rows[0], *entry.rows[1:]]
    wrong = dataclasses.replace(entry, rows=rows, samples=[[r * 2, r * 2 + 1] for r in rows])
    entries = [wrong if e is entry else e for e in whole.entries]
    first, second = epochs_of(dataclasses.replace(whole, entries=entries))
    assert list(first.repeated) == sorted([rows[0] * 2, rows[0] * 2 + 1])
    assert first.lost == 1
    assert not second.repeated
    assert second.lost == 0


def test_data_that_holds_a_sample_twice_is_no_mistake():
    """Weights repeat samples, and a long text can be several rows."""
    whole = account(5)
    entries = [
        dataclasses.replace(e, samples=[[row // 2, row // 2] for row in e.rows])
        for e in whole.entries
    ]
    first, second = epochs_of(dataclasses.replace(whole, entries=entries))
    assert (first.rows, first.samples) == (10, 5)
    assert not first.repeated
    assert not second.repeated


def test_what_was_left_out_is_neither_lost_nor_forgotten():
    """Batch 2 holds the last two rows of the first epoch and the first two of the second."""
    first, second = epochs_of(account(4, skipped=(2,)))
    assert (first.rows, first.skipped, first.lost, first.whole) == (8, 2, 0, True)
    assert (second.rows, second.skipped, second.lost) == (8, 2, 0)


def test_a_sample_is_found():
    whole = account(6)
    row = whole.entries[0].rows[0]
    steps = [entry.step for entry in find_sample(whole.entries, row * 2 + 1)]
    assert steps[0] == 1
    assert len(steps) in (2, 3)
    assert find_sample(whole.entries, 999) == []
