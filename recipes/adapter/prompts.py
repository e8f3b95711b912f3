"""Kinds that put trained vectors before each text, and change no module of the base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from recipes.adapter.checks import at_least
from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualTokens:
    """Of kinds whose adapter is a number of virtual tokens."""

    kind: str

    tokens: int = 20
    """How many virtual tokens stand before each text, besides data.sequence_length."""

    def problems(self) -> Iterator[Problem]:
        yield from at_least(1, {"tokens": self.tokens}, "is no prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTuning(VirtualTokens):
    """The embeddings of virtual tokens are trained (arXiv:2104.08691); try a learning rate of 0.01
    or more."""

    kind: Literal["prompt_tuning"] = "prompt_tuning"
    """Method."""

    text: str | None = None
    """They begin as the embeddings of this text, repeated or cut; of random tokens without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PTuning(VirtualTokens):
    """The embeddings of virtual tokens come from a small network that is trained (arXiv:2103.10385)
    and not saved: what it gives is."""

    kind: Literal["p_tuning"] = "p_tuning"
    """Method."""

    width: int = 128
    """Hidden width of the network, an MLP."""

    def problems(self) -> Iterator[Problem]:
        yield from VirtualTokens.problems(self)
        yield from at_least(1, {"width": self.width}, "is no width")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixTuning(VirtualTokens):
    """Keys and values of virtual tokens are trained for every layer (arXiv:2101.00190)."""

    kind: Literal["prefix_tuning"] = "prefix_tuning"
    """Method."""

    projection: bool = False
    """Make them with a small network, which is trained and not saved."""

    width: int = 128
    """Hidden width of that network."""

    def problems(self) -> Iterator[Problem]:
        yield from VirtualTokens.problems(self)
        yield from at_least(1, {"width": self.width}, "is no width")
