"""The global order of rows, and who computes which of them.

Everything here is a function of the recipe's seed and batch size, the number of rows and a
position; the number of workers decides only who computes a micro-batch, never what is in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt


@lru_cache(maxsize=2)
def epoch_order(num_rows: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order of rows in one epoch: a permutation of 0 … num_rows - 1 (int64)."""
    return np.random.Generator(np.random.Philox([seed, epoch])).permutation(num_rows)


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
        return self._rows(self.batch(step) * self.global_batch_size, self.global_batch_size)

    def _rows(self, first: int, count: int) -> list[int]:
        rows: list[int] = []
        while len(rows) < count:
            epoch, within = divmod(first + len(rows), self.num_rows)
            order = epoch_order(self.num_rows, self.seed, epoch)
            rows += order[within : within + count - len(rows)].tolist()
        return rows

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
        return self._rows(first, self.micro_batch_size)


def num_steps(*, steps: int | None, epochs: float | None, num_rows: int, batch_size: int) -> int:
    """Optimizer steps of a run; a last partial batch is filled up from the next epoch."""
    if steps is not None:
        return steps
    assert epochs is not None
    return math.ceil(epochs * num_rows / batch_size)
