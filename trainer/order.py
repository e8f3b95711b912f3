"""The global order of rows, and who computes which of them.

Everything here is a function of the recipe's seed and batch size, the rows' number and lengths, and
a position; the number of workers decides only who computes a micro-batch, never what is in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from recipes.recipe import Recipe

_Rows = npt.NDArray[np.int64]

# Batches among which rows are sorted by length, as transformers has it; of few rows fewer, so that
# no two epochs have the same batches.
_SORTED_BATCHES = 50
_SORTED_PARTS = 4


@lru_cache(maxsize=2)
def epoch_order(num_rows: int, seed: int, epoch: int) -> _Rows:
    """The order of rows in one epoch: a permutation of 0 … num_rows - 1 (int64)."""
    return np.random.Generator(np.random.Philox([seed, epoch])).permutation(num_rows)


@dataclass(frozen=True, eq=False)
class Lengths:
    """Tokens of every row, by which batches are made of rows of similar length: (rows,)."""

    tokens: npt.NDArray[Any]


@lru_cache(maxsize=2)
def grouped_order(lengths: Lengths, seed: int, epoch: int, batch_size: int) -> _Rows:
    """The order of rows in one epoch whose batches hold rows of similar length: a permutation.

    Rows in random order are cut into parts of many batches, each part is sorted, the longest row
    first, and cut into batches, which come in random order. Batches go on over the end of an
    epoch: its first rows, which end a batch of the epoch before, and its last, which begin one of
    the next, are any rows. Inside a batch the longest row comes first, so micro-batches that are
    computed at the same time are alike too. The first epoch begins with the batch of the longest
    row: what does not fit into memory is known at once.
    """
    tokens = lengths.tokens
    rows = len(tokens)
    random = np.random.Generator(np.random.Philox([seed, epoch]))
    order = random.permutation(rows)
    first = min(-epoch * rows % batch_size, rows)
    batches = (rows - first) // batch_size
    last = first + batches * batch_size
    part = batch_size * max(1, min(_SORTED_BATCHES, batches // _SORTED_PARTS))
    for begin in range(first, last, part):
        _sort(order[begin : min(begin + part, last)], tokens)
    whole = order[first:last].reshape(batches, batch_size)[random.permutation(batches)]
    if epoch == 0 and batches:
        longest = int(tokens[whole[:, 0]].argmax())
        whole[[0, longest]] = whole[[longest, 0]]
    order[first:last] = whole.reshape(-1)
    _sort(order[:first], tokens)
    _sort(order[last:], tokens)
    return order


def _sort(rows: _Rows, tokens: npt.NDArray[Any]) -> None:
    """In place, the longest first; rows of one length stay as they were."""
    rows[:] = rows[np.argsort(-tokens[rows].astype(np.int64), kind="stable")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Rows of every step. Batch b takes the positions [b·B, (b+1)·B) of the endless sequence of
    epochs, each in its own order; step s (from 0) takes the s-th batch that is not skipped."""

    num_rows: int
    seed: int
    global_batch_size: int
    micro_batch_size: int
    skipped: tuple[int, ...] = ()
    """Batches left out, ascending."""
    lengths: Lengths | None = None
    """Group rows by these."""

    def epoch(self, number: int) -> _Rows:
        """The order of rows in one epoch: a permutation of 0 … num_rows - 1 (int64)."""
        if self.lengths is None:
            return epoch_order(self.num_rows, self.seed, number)
        return grouped_order(self.lengths, self.seed, number, self.global_batch_size)

    def batch(self, step: int) -> int:
        """Number of the batch of one step."""
        number = step
        for left_out in self.skipped:
            if left_out > number:
                break
            number += 1
        return number

    def rows(self, step: int) -> list[int]:
        """Row indices of the global batch of one step, in order: `global_batch_size` of them."""
        size = self.global_batch_size
        found: list[int] = self.positions(self.batch(step) * size, size).tolist()
        return found

    def positions(self, first: int, count: int) -> _Rows:
        """Row indices at `count` positions of the endless sequence of epochs (int64)."""
        parts = []
        end = first + count
        while first < end:
            epoch, within = divmod(first, self.num_rows)
            parts.append(self.epoch(epoch)[within : within + end - first])
            first += len(parts[-1])
        return np.concatenate(parts)

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches in one global batch."""
        return self.global_batch_size // self.micro_batch_size

    def accumulation(self, num_workers: int) -> int:
        """Micro-batches each worker computes per step. When the workers do not divide them, some
        workers compute one more that weighs nothing, so every worker count is legal."""
        return math.ceil(self.num_micro_batches / num_workers)

    def micro_batch(self, step: int, number: int) -> list[int]:
        """Row indices of micro-batch `number` of a step: `micro_batch_size` of them."""
        first = self.batch(step) * self.global_batch_size + number * self.micro_batch_size
        found: list[int] = self.positions(first, self.micro_batch_size).tolist()
        return found


def order_of(recipe: Recipe, tokens: npt.NDArray[Any], skipped: Sequence[int] = ()) -> Order:
    """The order of a recipe's rows, given the tokens of each."""
    # Packed rows are all about as long as can be.
    grouped = recipe.data.group_by_length and not recipe.data.packing
    return Order(
        num_rows=len(tokens),
        seed=recipe.seed,
        global_batch_size=recipe.train.global_batch_size,
        micro_batch_size=recipe.train.micro_batch_size,
        skipped=tuple(sorted(set(skipped))),
        lengths=Lengths(tokens) if grouped else None,
    )


def num_steps(*, steps: int | None, epochs: float | None, num_rows: int, batch_size: int) -> int:
    """Optimizer steps of a run; a last partial batch is filled up from the next epoch."""
    if steps is not None:
        return steps
    assert epochs is not None
    # Of what the recipe says: as a float, 1.1 epochs of 100 rows are a little more than 110 rows.
    return math.ceil(Fraction(str(epochs)) * num_rows / batch_size)
