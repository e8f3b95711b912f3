"""How DeepSpeed shards the model and the optimizer over the workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Zero:
    stage: int = 0
    """ZeRO stage: 0 shards nothing, 1 optimizer state, 2 also gradients, 3 also the frozen base."""

    def problems(self) -> Iterator[Problem]:
        if self.stage not in (0, 1, 2, 3):
            yield Problem(
                path="zero.stage",
                value=self.stage,
                message="is no ZeRO stage",
                allowed="0, 1, 2, 3",
            )
