import numpy as np
import pytest

from recipes.train import Train
from trainer.order import Order, epoch_order, num_steps
from trainer.schedule import learning_rate


def order(num_rows: int = 10, batch: int = 8, micro: int = 2, seed: int = 3) -> Order:
    return Order(num_rows=num_rows, seed=seed, global_batch_size=batch, micro_batch_size=micro)


def test_every_epoch_holds_every_row_once():
    rows = [row for step in range(5) for row in order().rows(step)]
    for epoch in range(4):
        assert sorted(rows[epoch * 10 : epoch * 10 + 10]) == list(range(10))


def test_epochs_differ_and_seeds_differ():
    assert not np.array_equal(epoch_order(50, 0, 0), epoch_order(50, 0, 1))
    assert not np.array_equal(epoch_order(50, 0, 0), epoch_order(50, 1, 0))


def test_the_order_is_written_down():
    """A resumed run must see what the old one would have seen, whatever numpy is installed."""
    assert epoch_order(8, 0, 0).tolist() == [3, 6, 4, 0, 7, 5, 2, 1]


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5])
def test_workers_only_divide_the_micro_batches(workers: int):
    one = order(batch=8, micro=2)
    numbers = [
        turn * workers + rank
        for turn in range(one.accumulation(workers))
        for rank in range(workers)
        if turn * workers + rank < one.num_micro_batches
    ]
    assert numbers == [0, 1, 2, 3]
    rows = [row for number in numbers for row in one.micro_batch(1, number)]
    assert rows == one.rows(1)


def test_epochs_round_up_to_whole_steps():
    assert num_steps(steps=None, epochs=1, num_rows=17, batch_size=8) == 3
    assert num_steps(steps=None, epochs=0.5, num_rows=16, batch_size=8) == 1
    assert num_steps(steps=7, epochs=None, num_rows=17, batch_size=8) == 7


def test_schedules():
    def rates(schedule: str) -> list[float]:
        train = Train(steps=6, learning_rate=1.0, schedule=schedule, warmup_steps=2)
        return [learning_rate(train, step, 6) for step in range(6)]

    assert rates("constant") == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert rates("linear") == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert rates("cosine") == pytest.approx([0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466])


def test_a_skipped_batch_is_as_if_it_were_not_there():
    plain = order()
    skipping = Order(
        num_rows=10, seed=3, global_batch_size=8, micro_batch_size=2, skipped=(1, 2, 5)
    )
    assert [skipping.batch(step) for step in range(5)] == [0, 3, 4, 6, 7]
    assert [skipping.rows(step) for step in range(5)] == [plain.rows(b) for b in (0, 3, 4, 6, 7)]
    assert skipping.micro_batch(1, 2) == plain.micro_batch(3, 2)
