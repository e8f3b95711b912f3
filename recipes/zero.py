"""How DeepSpeed shards the model and the optimizer over the workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Zero:
    stage: int = 0
    """ZeRO stage: 0 shards nothing, 1 optimizer state, 2 also gradients, 3 also the frozen base."""

    offload_optimizer: bool = False
    """Keep the optimizer's masters and state in host memory, and step there; stages 1 to 3."""

    offload_parameters: bool = False
    """Keep a worker's part of the base in host memory, for more time a step; stage 3 on GPUs."""

    hpz_size: int = 1
    """Keep a second copy of the base on every so many workers of a node, near at hand; stage 3."""

    def problems(self) -> Iterator[Problem]:
        if self.stage not in (0, 1, 2, 3):
            yield Problem(
                path="zero.stage",
                value=self.stage,
                message="is no ZeRO stage",
                allowed="0, 1, 2, 3",
            )
        if self.hpz_size < 1:
            yield Problem(
                path="zero.hpz_size",
                value=self.hpz_size,
                message="is no number of workers",
                allowed="1, or a divisor of the workers of a node",
            )
