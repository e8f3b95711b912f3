import numpy as np
import pytest

from recipes.data import Data, Source
from recipes.recipe import Recipe
from recipes.train import Train
from support import jobs
from trainer.order import Lengths, Order, epoch_order, grouped_order, num_steps, order_of
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
    assert num_steps(steps=None, epochs=1.1, num_rows=100, batch_size=10) == 11
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


ROWS = 1003
TOKENS = np.random.Generator(np.random.Philox(7)).integers(10, 500, ROWS)


def grouped(batch: int = 8, micro: int = 2, seed: int = 3, skipped: tuple[int, ...] = ()) -> Order:
    return Order(
        num_rows=ROWS,
        seed=seed,
        global_batch_size=batch,
        micro_batch_size=micro,
        skipped=skipped,
        lengths=Lengths(TOKENS),
    )


def padding(made: Order, steps: int) -> float:
    """Share of the positions of all micro-batches that hold no token."""
    widths = tokens = 0
    for step in range(steps):
        for number in range(made.num_micro_batches):
            lengths = TOKENS[made.micro_batch(step, number)]
            widths += len(lengths) * int(lengths.max())
            tokens += int(lengths.sum())
    return 1 - tokens / widths


def test_grouped_by_length_every_epoch_holds_every_row_once():
    for batch in (8, 7, 100, 2000):  # more than one epoch in a batch
        made = grouped(batch, micro=1)
        rows = made.positions(0, 4 * ROWS).reshape(4, ROWS)
        assert np.array_equal(np.sort(rows, axis=1), np.tile(np.arange(ROWS), (4, 1)))
        assert not np.array_equal(rows[1], rows[2])
        assert not np.array_equal(rows[0], grouped(batch, seed=4).epoch(0))


def test_grouped_batches_are_alike_inside_and_in_random_order():
    steps = 3 * ROWS // 8
    plain = Order(num_rows=ROWS, seed=3, global_batch_size=8, micro_batch_size=2)
    assert padding(plain, steps) > 0.2
    assert padding(grouped(), steps) < 0.03
    means = np.array([TOKENS[grouped().rows(step)].mean() for step in range(1, 125)])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3
    for step in range(20):
        lengths = TOKENS[grouped().rows(step)]
        assert np.all(np.diff(lengths) <= 0)


def test_no_two_epochs_have_the_same_batches_even_of_few_rows():
    made = grouped(batch=100)
    first = {frozenset(made.rows(step)) for step in range(10)}
    assert not first & {frozenset(made.rows(step)) for step in range(10, 20)}


def test_the_first_step_has_the_longest_row():
    assert TOKENS[grouped().rows(0)].max() == TOKENS.max()


def test_the_grouped_order_is_written_down():
    lengths = Lengths(np.array([5, 9, 1, 7, 3, 8, 2, 6, 4, 10]))
    assert grouped_order(lengths, 0, 0, 4).tolist() == [1, 5, 4, 6, 3, 7, 0, 8, 9, 2]
    assert grouped_order(lengths, 0, 1, 4).tolist() == [1, 5, 9, 3, 0, 2, 7, 8, 4, 6]


def test_a_skipped_batch_leaves_the_grouped_order_as_it_is():
    plain, skipping = grouped(), grouped(skipped=(1, 2))
    assert [skipping.rows(step) for step in range(3)] == [plain.rows(b) for b in (0, 3, 4)]


def test_packed_rows_are_not_grouped():
    def data(**options: bool) -> Recipe:
        return jobs.recipe(data=Data(train=[Source(path="/x")], **options))

    assert order_of(data(), TOKENS).lengths is not None
    assert order_of(data(packing=True), TOKENS).lengths is None
    assert order_of(data(group_by_length=False), TOKENS).lengths is None
