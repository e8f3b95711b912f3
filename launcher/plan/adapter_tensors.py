"""The tensors that each kind of adapter trains on a module, as PEFT makes them.

tests/launcher/plan/test_shapes.py compares names' number and sizes with PEFT's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from launcher.plan.base_shape import Tensor
from recipes.adapter import Adalora, Boft, Ia3, Loha, Lokr, Lora, Oft, Ranked, Targeted, Vera

PREFIX = "base_model.model."
"""Before the names of a base's modules in a PEFT model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapted:
    """One module of the base with the adapter's tensors around it."""

    name: str
    layer: int | None
    inputs: int
    outputs: int
    is_norm: bool = False


def tensors_of(module: Adapted, adapter: Targeted) -> list[Tensor]:
    """What an adapter trains on a module: float32."""
    made = _OF[type(adapter)](module, adapter)
    return [float32(f"{PREFIX}{module.name}.{name}", *shape) for name, shape in made]


def float32(name: str, *shape: int) -> Tensor:
    """A trained tensor."""
    tensor = Tensor(name=name, shape=shape, stored_bytes=0)
    return Tensor(name=name, shape=shape, stored_bytes=4 * tensor.elements)


_Made = Iterator[tuple[str, tuple[int, ...]]]


def rank_of(module: Adapted, adapter: Ranked) -> int:
    """The rank of a module, as PEFT finds it (`get_pattern_key`)."""
    for pattern, rank in adapter.rank_pattern.items():
        if re.match(rf"(.*\.)?({pattern})$", module.name):
            return rank
    return adapter.r


def _lora(module: Adapted, adapter: Lora) -> _Made:
    rank = rank_of(module, adapter)
    yield "lora_A.default.weight", (rank, module.inputs)
    yield "lora_B.default.weight", (module.outputs, rank)
    if adapter.dora:
        yield "lora_magnitude_vector.default.weight", (module.outputs,)


def _adalora(module: Adapted, adapter: Adalora) -> _Made:
    yield "lora_A.default", (adapter.first_r, module.inputs)
    yield "lora_B.default", (module.outputs, adapter.first_r)
    yield "lora_E.default", (adapter.first_r, 1)


def _loha(module: Adapted, adapter: Loha) -> _Made:
    rank = rank_of(module, adapter)
    for number in (1, 2):
        yield f"hada_w{number}_a.default", (module.outputs, rank)
        yield f"hada_w{number}_b.default", (rank, module.inputs)


def _lokr(module: Adapted, adapter: Lokr) -> _Made:
    rank = rank_of(module, adapter)
    small_in, large_in = factors_of(module.inputs, adapter.factor)
    small_out, large_out = factors_of(module.outputs, adapter.factor)
    if adapter.decompose_both and rank < max(small_out, small_in) / 2:
        yield "lokr_w1_a.default", (small_out, rank)
        yield "lokr_w1_b.default", (rank, small_in)
    else:
        yield "lokr_w1.default", (small_out, small_in)
    if rank < max(large_out, large_in) / 2:
        yield "lokr_w2_a.default", (large_out, rank)
        yield "lokr_w2_b.default", (rank, large_in)
    else:
        yield "lokr_w2.default", (large_out, large_in)


def factors_of(width: int, factor: int) -> tuple[int, int]:
    """Two numbers whose product is a width, the smaller first: `factor` itself where it divides,
    else the divisor nearest below it and below the root."""
    if factor > 0 and width % factor == 0:
        return factor, width // factor
    limit = width if factor == -1 else factor
    small = max(
        number
        for number in range(1, int(width**0.5) + 1)
        if width % number == 0 and number <= limit
    )
    return small, width // small


def _ia3(module: Adapted, adapter: Ia3) -> _Made:
    name = module.name.rpartition(".")[2]
    yield "ia3_l.default", (module.inputs if name in adapter.feedforward else module.outputs,)


def _oft(module: Adapted, adapter: Oft) -> _Made:
    size = block_of(module.inputs, adapter.block_size)
    blocks = 1 if adapter.share_blocks else module.inputs // size
    yield "oft_R.default.weight", (blocks, size * (size - 1) // 2)


def block_of(width: int, wanted: int) -> int:
    """The divisor of a width that is nearest to a block's size, the smaller of two."""
    divisors = [number for number in range(1, width + 1) if width % number == 0]
    return min(divisors, key=lambda number: (abs(number - wanted), number))


def _boft(module: Adapted, adapter: Boft) -> _Made:
    size = adapter.block_size
    yield "boft_R.default", (1, module.inputs // size, size, size)
    yield "boft_s.default", (module.outputs, 1)


def _vera(module: Adapted, adapter: Vera) -> _Made:
    yield "vera_lambda_d.default", (adapter.r,)
    yield "vera_lambda_b.default", (module.outputs,)


_OF: dict[type, Callable[[Adapted, Any], _Made]] = {
    Lora: _lora,
    Adalora: _adalora,
    Loha: _loha,
    Lokr: _lokr,
    Ia3: _ia3,
    Oft: _oft,
    Boft: _boft,
    Vera: _vera,
}
