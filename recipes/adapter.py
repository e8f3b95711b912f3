"""What is trained: a small adapter inside the frozen base. One class for each kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from recipes.problem import Problem

REGEX = "re:"
"""Begins a target that is a regular expression of full module names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targeted:
    """Of all kinds that change modules of the base."""

    kind: str

    targets: list[str] = field(default_factory=lambda: ["all-linear"])
    """Modules by name, such as q_proj, or one `re:` pattern; `all-linear` leaves out the head."""

    modules_to_save: list[str] = field(default_factory=list)
    """Modules trained in full and kept with the adapter; a new classification head is always."""

    def problems(self) -> Iterator[Problem]:
        if not self.targets:
            yield Problem(
                path="adapter.targets",
                value=self.targets,
                message="names no module",
                allowed="all-linear, module names, or one pattern that begins with re:",
            )
        for alone in ("all-linear", "all-norms"):
            if alone in self.targets and len(self.targets) > 1:
                yield Problem(
                    path="adapter.targets", value=self.targets, message=f"{alone} stands alone"
                )
        yield from self._pattern_problems()

    def _pattern_problems(self) -> Iterator[Problem]:
        patterns = [target for target in self.targets if target.startswith(REGEX)]
        if patterns and len(self.targets) > 1:
            yield Problem(
                path="adapter.targets", value=self.targets, message="a pattern stands alone"
            )
        for pattern in patterns:
            try:
                re.compile(pattern.removeprefix(REGEX))
            except re.error as error:
                yield Problem(
                    path="adapter.targets",
                    value=pattern,
                    message=f"is no regular expression: {error}",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layered(Targeted):
    """Of kinds that can be kept to some layers."""

    last_layers: int | None = None
    """Adapt only this many layers, counted from the output; all when left out."""

    def problems(self) -> Iterator[Problem]:
        yield from Targeted.problems(self)
        yield from _at_least(1, {"last_layers": self.last_layers}, "adapts nothing")
        if self.last_layers is not None and self.targets[:1] and self.targets[0].startswith(REGEX):
            yield Problem(
                path="adapter.last_layers",
                value=self.last_layers,
                message="a pattern names layers by itself",
                hint="Put the layers' numbers into adapter.targets",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked(Layered):
    """Of kinds that add a scaled matrix of low rank."""

    r: int = 8
    """Rank of the added matrices."""

    alpha: float = 16.0
    """Scale: what is added is multiplied by alpha / r."""

    dropout: float = 0.0
    """Share of the added matrix's rows set to zero while training."""

    def problems(self) -> Iterator[Problem]:
        yield from Layered.problems(self)
        yield from _at_least(1, {"r": self.r}, "is no rank")
        if self.alpha <= 0:
            yield Problem(
                path="adapter.alpha", value=self.alpha, message="is no scale", allowed="> 0"
            )
        yield from _shares({"dropout": self.dropout})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Oft(Layered):
    """Each target's inputs are rotated in blocks, which keeps angles between neurons
    (arXiv:2306.07280)."""

    kind: Literal["oft"] = "oft"
    """Method."""

    block_size: int = 32
    """Width of a rotated block; the nearest divisor where it does not divide a target's inputs."""

    share_blocks: bool = False
    """Rotate all blocks of a target alike: fewer numbers."""

    def problems(self) -> Iterator[Problem]:
        yield from Layered.problems(self)
        yield from _at_least(2, {"block_size": self.block_size}, "rotates nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Boft(Layered):
    """Rotations of blocks as in oft, and a scale for each output (arXiv:2311.06243). One factor of
    the butterfly: PEFT has more only with a CUDA extension, and elsewhere takes one without a word.
    Each target keeps a matrix of its inputs squared."""

    kind: Literal["boft"] = "boft"
    """Method."""

    block_size: int = 4
    """Width of a rotated block; must divide the inputs of every target."""

    dropout: float = 0.0
    """Share of the blocks that are left unrotated while training."""

    def problems(self) -> Iterator[Problem]:
        yield from Layered.problems(self)
        yield from _at_least(2, {"block_size": self.block_size}, "rotates nothing")
        yield from _shares({"dropout": self.dropout})


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
        yield from _at_least(1, {"r": self.r}, "is no rank")
        yield from _shares({"dropout": self.dropout})


@dataclass(frozen=True, slots=True, kw_only=True)
class LnTuning(Targeted):
    """The base's own normalisations are trained, as copies (arXiv:2312.11420)."""

    kind: Literal["ln_tuning"] = "ln_tuning"
    """Method."""

    targets: list[str] = field(default_factory=lambda: ["all-norms"])
    """Normalisations by name, such as input_layernorm, or one `re:` pattern; `all-norms` is all."""


Adapter = Lora | Loha | Lokr | Ia3 | Oft | Boft | Vera | LnTuning


def _at_least(least: int, values: dict[str, Any], message: str) -> Iterator[Problem]:
    for name, value in values.items():
        if value is not None and value < least:
            yield Problem(
                path=f"adapter.{name}", value=value, message=message, allowed=f"≥ {least}"
            )


def _shares(values: dict[str, float]) -> Iterator[Problem]:
    for name, value in values.items():
        if not 0.0 <= value < 1.0:
            yield Problem(
                path=f"adapter.{name}",
                value=value,
                message="is not a share",
                allowed="0 ≤ value < 1",
            )
