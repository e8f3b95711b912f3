"""How long a run is: steps, epochs, samples, tokens. Exact when the rows were counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from launcher.plan.rows import Rows
from recipes.recipe import Recipe
from trainer.order import Order, num_steps, order_of

# Of more micro-batches than this the widest is not looked for, but taken from the longest row.
_LOOKED_AT = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """What a whole run consumes. Samples that come again in another epoch count again."""

    rows: int
    steps: int
    epochs: float
    samples: int
    tokens: int
    """Without padding."""
    widest_tokens: int
    """Of the longest row in any micro-batch, to which the others are filled up."""
    widest_columns: int
    """Positions of a micro-batch at which anything is learnt, at most: as many rows of logits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """A number of workers that has something to do for each, and what it comes to."""

    workers: int
    accumulation: int
    """Micro-batches of each worker in a step."""
    idle: int
    """Micro-batches computed in a step that weigh nothing, because the workers do not divide it."""


def length_of(recipe: Recipe, rows: Rows) -> Length:
    """The length of a run that begins at the first step and leaves no batch out."""
    train = recipe.train
    steps = num_steps(
        steps=train.steps,
        epochs=train.epochs,
        num_rows=len(rows),
        batch_size=train.global_batch_size,
    )
    positions = steps * train.global_batch_size
    order = order_of(recipe, rows.tokens)
    consumed = _consumed(order, positions)
    widest, columns = _widest(order, rows, positions)
    return Length(
        rows=len(rows),
        steps=steps,
        epochs=positions / len(rows),
        samples=int(consumed @ rows.samples),
        tokens=int(consumed @ rows.tokens),
        widest_tokens=widest,
        widest_columns=columns,
    )


def worker_counts(recipe: Recipe) -> tuple[Workers, ...]:
    """Every number of workers up to the micro-batches of a step that is not slower than a smaller
    one: the fewest for each accumulation."""
    order = _order(recipe)
    best: dict[int, Workers] = {}
    for number in range(1, order.num_micro_batches + 1):
        accumulation = order.accumulation(number)
        if accumulation not in best:
            best[accumulation] = Workers(
                workers=number,
                accumulation=accumulation,
                idle=number * accumulation - order.num_micro_batches,
            )
    return tuple(best.values())


def workers_of(recipe: Recipe, number: int) -> Workers:
    """What a step is for a number of workers."""
    order = _order(recipe)
    accumulation = order.accumulation(number)
    return Workers(
        workers=number,
        accumulation=accumulation,
        idle=number * accumulation - order.num_micro_batches,
    )


def _order(recipe: Recipe) -> Order:
    """The order of one row: how a step is cut does not depend on the rows."""
    return order_of(recipe, np.ones(1, np.int64))


def _consumed(order: Order, positions: int) -> npt.NDArray[np.int64]:
    """How often each row is seen in the first positions of the endless sequence of epochs."""
    epochs, rest = divmod(positions, order.num_rows)
    counts = np.full(order.num_rows, epochs, np.int64)
    if rest:
        counts[order.epoch(epochs)[:rest]] += 1
    return counts


def _widest(order: Order, rows: Rows, positions: int) -> tuple[int, int]:
    """Tokens of the longest row of the micro-batch that takes the most memory, and the positions
    at which that micro-batch learns something: at most one for each supervised token."""
    micro = order.micro_batch_size
    longest = int(rows.tokens.max())
    supervised = int(rows.supervised.max())
    if rows.prepared is None or positions > _LOOKED_AT * micro:
        return longest, min(longest, micro * supervised)
    seen = order.positions(0, positions).reshape(-1, micro)
    widths = rows.tokens[seen].max(axis=1)
    columns = np.minimum(rows.supervised[seen].sum(axis=1), widths)
    return int(widths.max()), int(columns.max())
