"""LoRA whose ranks are moved between modules while it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from recipes.adapter.checks import at_least, scales, shares
from recipes.adapter.targeted import Layered
from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Adalora(Layered):
    """As lora, begun with a higher rank; what matters least of all modules is set to zero, until
    the mean rank is what was asked for (arXiv:2303.10512). The loss keeps its matrices orthogonal.
    """

    kind: Literal["adalora"] = "adalora"
    """Method."""

    r: int = 8
    """Mean rank at the end."""

    first_r: int = 12
    """Rank of every module at the beginning; what is saved keeps it, with zeros."""

    alpha: float = 32.0
    """Scale: the added product is multiplied by alpha / first_r."""

    dropout: float = 0.0
    """Share of the adapter's inputs set to zero while training."""

    settle_steps: int = 0
    """Steps before ranks are first lowered."""

    final_steps: int = 0
    """Steps at the end in which they stay as they are."""

    every_steps: int = 1
    """Ranks are lowered after each so many steps."""

    orthogonality: float = 0.5
    """Weight of what the loss takes for matrices that are not orthogonal."""

    def problems(self) -> Iterator[Problem]:
        yield from Layered.problems(self)
        yield from at_least(1, {"r": self.r, "every_steps": self.every_steps}, "is too small")
        yield from at_least(
            0,
            {
                "settle_steps": self.settle_steps,
                "final_steps": self.final_steps,
                "orthogonality": self.orthogonality,
            },
            "is negative",
        )
        if self.first_r <= self.r:
            yield Problem(
                path="adapter.first_r",
                value=self.first_r,
                message=f"leaves nothing to lower to adapter.r = {self.r}",
                allowed=f"> {self.r}",
            )
        yield from scales({"alpha": self.alpha})
        yield from shares({"dropout": self.dropout})
