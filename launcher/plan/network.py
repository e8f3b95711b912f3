"""Bytes that each rank sends in a step.

A ring moves (W-1)/W of a tensor for a reduce-scatter or an all-gather, and twice that for an
all-reduce (Patarasuk and Yuan 2009). Which of them a stage needs: ZeRO (arXiv:1910.02054, section
7). Only what is trained has gradients, so most of it is what stage 3 gathers of the base.
"""

from __future__ import annotations

from dataclasses import dataclass

from launcher.plan.adapter_shape import AdapterShape
from launcher.plan.base_shape import BaseShape
from recipes.recipe import Recipe

# DeepSpeed's stage3_max_reuse_distance: a larger base is gathered again for the backward pass.
_KEPT_ELEMENTS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Of one rank in one step."""

    gradients_bytes: int
    parameters_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.gradients_bytes + self.parameters_bytes


def traffic_of(
    recipe: Recipe,
    base: BaseShape,
    adapter: AdapterShape,
    *,
    element_bytes: int,
    workers: int,
    accumulation: int,
) -> Traffic:
    """What a rank sends. Stages 2 and 3 reduce the gradients of every micro-batch, stages 0 and 1
    those of the step; stage 3 gathers the base for every micro-batch."""
    stage = recipe.zero.stage
    trained = 4 * adapter.parameters

    def share(amount: int) -> int:
        return amount * (workers - 1) // workers

    if stage == 0:
        return Traffic(gradients_bytes=2 * share(trained), parameters_bytes=0)
    if stage < 3:
        times = accumulation if stage == 2 else 1
        return Traffic(gradients_bytes=share(trained * times), parameters_bytes=share(trained))
    passes = 1 if base.parameters <= _KEPT_ELEMENTS else 2
    gathered = base.parameters * element_bytes * passes * accumulation
    near = recipe.zero.hpz_size
    return Traffic(
        gradients_bytes=share(trained * accumulation),
        # With hpZ among the workers of a node, once each node has got its copy in the first step.
        parameters_bytes=gathered * (near - 1) // near if near > 1 else share(gathered),
    )
