"""Kinds that train parameters of the base themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from recipes.adapter.targeted import Layered, Targeted
from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class LnTuning(Targeted):
    """The base's own normalisations are trained (arXiv:2312.11420)."""

    kind: Literal["ln_tuning"] = "ln_tuning"
    """Method."""

    targets: list[str] = field(default_factory=lambda: ["all-norms"])
    """Normalisations by name, such as input_layernorm, or one `re:` pattern; `all-norms` is all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfreeze(Layered):
    """Modules of the base are trained in full, and only they are saved."""

    kind: Literal["unfreeze"] = "unfreeze"
    """Method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """The whole base is trained, and saved: what adapters are measured against."""

    kind: Literal["full"] = "full"
    """Method."""

    def problems(self) -> Iterator[Problem]:
        """It has no keys."""
        yield from ()


InPlace = LnTuning | Unfreeze | Full
