"""The kind that scales activations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from recipes.adapter.targeted import Targeted
from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Ia3(Targeted):
    """Activations are scaled, number by number: the smallest adapter (arXiv:2205.05638)."""

    kind: Literal["ia3"] = "ia3"
    """Method."""

    targets: list[str] = field(default_factory=lambda: ["k_proj", "v_proj", "down_proj"])
    """Modules by name, or one `re:` pattern; keys, values and the MLP's second, as in the paper."""

    feedforward: list[str] = field(default_factory=lambda: ["down_proj"])
    """Those of the targets whose inputs are scaled; of the others, the outputs are."""

    def problems(self) -> Iterator[Problem]:
        yield from Targeted.problems(self)
        odd = sorted(set(self.feedforward) - set(self.targets))
        if odd and self.targets != ["all-linear"]:
            yield Problem(
                path="adapter.feedforward",
                value=odd,
                message="is not among adapter.targets",
                allowed=", ".join(self.targets),
            )
