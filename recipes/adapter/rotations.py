"""Kinds that rotate what a target takes in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from recipes.adapter.checks import at_least, shares
from recipes.adapter.targeted import Layered
from recipes.problem import Problem


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
        yield from at_least(2, {"block_size": self.block_size}, "rotates nothing")


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
        yield from at_least(2, {"block_size": self.block_size}, "rotates nothing")
        yield from shares({"dropout": self.dropout})
