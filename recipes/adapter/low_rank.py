"""Kinds that add a matrix of low rank to each target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from recipes.adapter.checks import at_least, pattern_problems, scales, shares
from recipes.adapter.targeted import Layered
from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked(Layered):
    """Of kinds that add a scaled matrix of low rank."""

    r: int = 8
    """Rank of the added matrices."""

    alpha: float = 16.0
    """Scale: what is added is multiplied by alpha / r."""

    dropout: float = 0.0
    """Share of the added matrix's rows set to zero while training."""

    rank_pattern: dict[str, int] = field(default_factory=dict)
    """Other ranks by module: `{q_proj: 32}`, or a regular expression of the end of full names."""

    alpha_pattern: dict[str, float] = field(default_factory=dict)
    """Other values of alpha by module, likewise."""

    def problems(self) -> Iterator[Problem]:
        yield from Layered.problems(self)
        yield from at_least(1, {"r": self.r, **_each(self, "rank_pattern")}, "is no rank")
        yield from scales({"alpha": self.alpha, **_each(self, "alpha_pattern")})
        for path, patterns in (("rank", self.rank_pattern), ("alpha", self.alpha_pattern)):
            yield from pattern_problems(f"adapter.{path}_pattern", patterns)
        yield from shares({"dropout": self.dropout})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora(Ranked):
    """A product of two thin matrices is added to each target (arXiv:2106.09685)."""

    kind: Literal["lora"] = "lora"
    """Method."""

    r: int = 16
    """Rank of the added matrices."""

    alpha: float = 32.0
    """Scale: the added product is multiplied by alpha / r (by alpha / √r with rslora)."""

    dropout: float = 0.0
    """Share of the adapter's inputs set to zero while training."""

    rslora: bool = False
    """Scale by alpha / √r, which keeps high ranks stable (arXiv:2312.03732)."""

    dora: bool = False
    """Train magnitude and direction apart (arXiv:2402.09353); slower."""

    target_parameters: list[str] = field(default_factory=list)
    """Stacks of matrices adapted besides, such as mlp.experts.gate_up_proj of a mixture."""

    train_tokens: list[str] = field(default_factory=list)
    """Tokens of the tokenizer whose embeddings are trained too, such as reserved ones."""

    initialization: Literal["kaiming", "gaussian", "orthogonal", "olora", "pissa"] = "kaiming"
    """First values; pissa and olora take them from the base, and save twice the rank for it."""

    def problems(self) -> Iterator[Problem]:
        yield from Ranked.problems(self)
        apart = {
            "dropout": self.dropout > 0,
            "dora": self.dora,
            "initialization": self.takes_from_base,
        }
        for name in [name for name, given in apart.items() if given and self.target_parameters]:
            yield Problem(
                path=f"adapter.{name}",
                value=getattr(self, name),
                message="cannot be had with adapter.target_parameters, whose stacks PEFT adapts as "
                "a whole",
                hint=f"Leave adapter.{name} out",
            )

    @property
    def takes_from_base(self) -> bool:
        """Whether the first values are taken out of the base's weights."""
        return self.initialization in ("pissa", "olora")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loha(Ranked):
    """The elementwise product of two low-rank products is added: a high rank for few numbers
    (arXiv:2108.06098)."""

    kind: Literal["loha"] = "loha"
    """Method."""

    r: int = 8
    """Rank of each of the two products; their product has up to its square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lokr(Ranked):
    """A Kronecker product of two small matrices is added, the larger of low rank
    (arXiv:2309.14859)."""

    kind: Literal["lokr"] = "lokr"
    """Method."""

    r: int = 8
    """Rank of the larger of the two matrices."""

    factor: int = -1
    """Size of the smaller matrix; -1 takes the divisor nearest to the root of the width."""

    decompose_both: bool = False
    """Give the smaller matrix a low rank too, where that makes it smaller."""

    def problems(self) -> Iterator[Problem]:
        yield from Ranked.problems(self)
        if self.factor != -1 and self.factor < 1:
            yield Problem(
                path="adapter.factor", value=self.factor, message="is no size", allowed="-1, or ≥ 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Vera(Layered):
    """As lora with two random matrices that all targets share and that are never trained; only
    scales are (arXiv:2310.11454)."""

    kind: Literal["vera"] = "vera"
    """Method."""

    r: int = 256
    """Rank of the shared matrices."""

    dropout: float = 0.0
    """Share of the adapter's inputs set to zero while training."""

    first_scale: float = 0.1
    """First value of the scales inside the product; those outside begin at zero."""

    def problems(self) -> Iterator[Problem]:
        yield from Layered.problems(self)
        yield from at_least(1, {"r": self.r}, "is no rank")
        yield from shares({"dropout": self.dropout})


def _each(adapter: Ranked, name: str) -> dict[str, float]:
    """The values of a pattern, by the paths they are told by."""
    return {f"{name}.{module}": value for module, value in getattr(adapter, name).items()}
