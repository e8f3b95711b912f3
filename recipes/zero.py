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

    def problems(self) -> Iterator[Problem]:
        if self.stage not in (0, 1, 2, 3):
            yield Problem(
                path="zero.stage",
                value=self.stage,
                message="is no ZeRO stage",
                allowed="0, 1, 2, 3",
            )
        if self.offload_optimizer and self.stage == 0:
            yield Problem(
                path="zero.offload_optimizer",
                value=True,
                message="zero.stage = 0 keeps the optimizer's state beside the model",
                hint="Set zero.stage to 1, 2 or 3",
            )
