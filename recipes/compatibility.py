"""What cannot be combined: kind of adapter, quantisation of the base, ZeRO stage.

A table of facts about PEFT 0.21, bitsandbytes 0.50 and DeepSpeed 0.19. tests/trainer/test_kinds.py
and test_quantization.py train every cell that is left, and try each that is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recipes.adapter import Adapter, Lora
from recipes.base import Base
from recipes.problem import Problem
from recipes.zero import Zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Forbidden:
    """A set of cells that do not work."""

    kinds: tuple[str, ...] = ()
    """Of adapters, variants of lora among them; all when empty."""
    quantizations: tuple[str, ...] = ()
    """Of the base; all, `none` among them, when empty."""
    stages: tuple[int, ...] = (0, 1, 2, 3)
    why: str
    nearest: str
    """The nearest recipe that works."""


FORBIDDEN = (
    Forbidden(
        kinds=("loha",),
        stages=(3,),
        why="PEFT takes the shapes of LoHa's matrices from the weights, which stage 3 shards",
        nearest="Set zero.stage: 2, or adapter.kind: lora",
    ),
    Forbidden(
        kinds=("pissa", "olora"),
        quantizations=("nf4", "fp4", "int8"),
        why="what they take out of the base's weights would be lost in packing the rest again",
        nearest="Set base.quantization: none, or adapter.initialization: kaiming",
    ),
    Forbidden(
        kinds=("unfreeze", "full"),
        quantizations=("nf4", "fp4", "int8"),
        why="packed weights have no gradient",
        nearest="Set base.quantization: none, or adapter.kind: lora",
    ),
    Forbidden(
        kinds=("loha", "lokr"),
        quantizations=("nf4", "fp4"),
        why="PEFT adds a matrix of the weight's own shape, and a packed one has another",
        nearest="Set base.quantization: none, or adapter.kind: lora",
    ),
    Forbidden(
        kinds=("dora",),
        quantizations=("nf4", "fp4"),
        stages=(3,),
        why="DoRA needs the norms of whole weights, and DeepSpeed cannot gather quantised ones for "
        "PEFT",
        nearest="Set zero.stage: 2, or adapter.dora: false",
    ),
    Forbidden(
        kinds=("dora",),
        quantizations=("int8",),
        why="PEFT takes norms of the weights before bitsandbytes has put their scales in place",
        nearest="Set base.quantization: nf4, or adapter.dora: false",
    ),
    Forbidden(
        kinds=("experts",),
        stages=(3,),
        why="PEFT reads a stack of experts outside its module, where DeepSpeed does not gather it",
        nearest="Set zero.stage: 2, or leave adapter.target_parameters out",
    ),
    Forbidden(
        kinds=("tokens",),
        stages=(3,),
        why="PEFT gathers the tokens' rows of a sharded embedding on GPUs alone",
        nearest="Set zero.stage: 2, or leave adapter.train_tokens out",
    ),
    Forbidden(
        kinds=("adalora",),
        stages=(1, 2, 3),
        why="PEFT judges a rank by its whole gradients, and these stages hand each worker a part",
        nearest="Set zero.stage: 0, or adapter.kind: lora",
    ),
    Forbidden(
        kinds=("peft",),
        stages=(3,),
        why="many of its methods compute with the base's weights, which stage 3 shards",
        nearest="Set zero.stage: 2, or adapter.kind: lora",
    ),
    Forbidden(
        kinds=("peft",),
        quantizations=("nf4", "fp4", "int8"),
        why="most of its methods take no packed weights",
        nearest="Set base.quantization: none, or adapter.kind: lora",
    ),
    Forbidden(
        quantizations=("int8",),
        stages=(3,),
        why="bitsandbytes keeps whole 8-bit weights beside the parts that stage 3 makes",
        nearest="Set base.quantization: nf4, or zero.stage: 2",
    ),
)


VARIANTS = {
    "dora": "adapter.dora = true",
    "pissa": "adapter.initialization = pissa",
    "olora": "adapter.initialization = olora",
    "experts": "adapter.target_parameters",
    "tokens": "adapter.train_tokens or base.new_tokens",
}
"""Of lora, with how they are asked for."""


def kind_of(adapter: Adapter) -> str:
    """The kind as the table knows it."""
    if isinstance(adapter, Lora) and adapter.takes_from_base:
        return adapter.initialization
    if isinstance(adapter, Lora) and adapter.target_parameters:
        return "experts"
    if isinstance(adapter, Lora) and adapter.train_tokens:
        return "tokens"
    return "dora" if isinstance(adapter, Lora) and adapter.dora else adapter.kind


def forbidden(kind: str, quantization: str, stage: int) -> Forbidden | None:
    """Why a cell does not work, or None."""
    for cells in FORBIDDEN:
        if (
            kind in (cells.kinds or (kind,))
            and quantization in (cells.quantizations or (quantization,))
            and stage in cells.stages
        ):
            return cells
    return None


def problems(base: Base, adapter: Adapter, zero: Zero) -> Iterator[Problem]:
    """The problem of a combination that does not work."""
    kind = kind_of(adapter)
    if base.new_tokens and kind == "lora":
        kind = "tokens"
    cells = forbidden(kind, base.quantization, zero.stage)
    if cells is None:
        return
    told = []
    if cells.kinds:
        told.append(VARIANTS.get(kind, f"adapter.kind = {kind}"))
    if cells.quantizations:
        told.append(f"base.quantization = {base.quantization}")
    if len(cells.stages) < 4:
        told.append(f"zero.stage = {zero.stage}")
    yield Problem(
        path=" with ".join(told), message=f"cannot be combined: {cells.why}", hint=cells.nearest
    )
