"""What is trained: a small adapter inside the frozen base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    kind: Literal["lora"] = "lora"
    """Method; `lora` adds a product of two thin matrices to each target (arXiv:2106.09685)."""

    r: int = 16
    """Rank of the added matrices."""

    alpha: float = 32.0
    """Scale: the added product is multiplied by alpha / r (by alpha / √r with rslora)."""

    dropout: float = 0.0
    """Share of the adapter's inputs set to zero while training."""

    targets: list[str] = field(default_factory=lambda: ["all-linear"])
    """Modules to adapt by name, such as q_proj; `all-linear` is every linear but the head."""

    last_layers: int | None = None
    """Adapt only this many layers, counted from the output; all when left out."""

    modules_to_save: list[str] = field(default_factory=list)
    """Modules trained in full and kept with the adapter; a new classification head is always."""

    rslora: bool = False
    """Scale by alpha / √r, which keeps high ranks stable (arXiv:2312.03732)."""

    dora: bool = False
    """Train magnitude and direction apart (arXiv:2402.09353); slower."""

    def problems(self) -> Iterator[Problem]:
        if self.r < 1:
            yield Problem(path="adapter.r", value=self.r, message="is no rank", allowed="≥ 1")
        if self.alpha <= 0:
            yield Problem(
                path="adapter.alpha", value=self.alpha, message="is no scale", allowed="> 0"
            )
        if not 0.0 <= self.dropout < 1.0:
            yield Problem(
                path="adapter.dropout",
                value=self.dropout,
                message="is not a share",
                allowed="0 ≤ value < 1",
            )
        if not self.targets:
            yield Problem(
                path="adapter.targets",
                value=self.targets,
                message="names no module",
                allowed="all-linear, or module names",
            )
        if "all-linear" in self.targets and len(self.targets) > 1:
            yield Problem(
                path="adapter.targets",
                value=self.targets,
                message="all-linear stands alone",
            )
        if self.last_layers is not None and self.last_layers < 1:
            yield Problem(
                path="adapter.last_layers",
                value=self.last_layers,
                message="adapts nothing",
                allowed="≥ 1",
            )
