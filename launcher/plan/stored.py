"""A base's parameters as they lie in memory: plain, or quantised by bitsandbytes.

Blocks and scales as in QLoRA (arXiv:2305.14314, section 3): 64 numbers of 4 bits share a scale, and
with double quantisation 256 scales share one of their own. 8-bit weights have a scale a row
(arXiv:2208.07339).
"""

from __future__ import annotations

from dataclasses import dataclass

from launcher.plan.base_shape import BaseShape

_BLOCK = 64
_BLOCK_OF_SCALES = 256
_CODE_BYTES = 4 * 16
_CODE_OF_SCALES_BYTES = 4 * 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One parameter of the base."""

    elements: int
    """As stage 3 divides them: two numbers of 4 bits are one."""
    width: int
    """Bytes of an element."""
    beside: int = 0
    """Bytes of scales, which every rank has whole."""

    @property
    def bytes(self) -> int:
        return self.elements * self.width + self.beside


def stored(base: BaseShape, *, width: int, quantization: str, double: bool) -> list[Stored]:
    """Every parameter of a base and its new head; `width` are the bytes of a plain element."""
    linear = {f"{name}.weight" for name in base.linear} if quantization != "none" else set()
    return [
        _quantized(tensor.elements, tensor.shape[0], quantization, double=double)
        if tensor.name in linear
        else Stored(elements=tensor.elements, width=width)
        for tensor in (*base.tensors, *base.head)
    ]


def _quantized(elements: int, rows: int, quantization: str, *, double: bool) -> Stored:
    if quantization == "int8":
        return Stored(elements=elements, width=1, beside=4 * rows)
    scales = -(-elements // _BLOCK)
    beside = _CODE_BYTES + 4 * scales
    if double:
        beside = _CODE_BYTES + _CODE_OF_SCALES_BYTES + scales + 4 * -(-scales // _BLOCK_OF_SCALES)
    return Stored(elements=-(-elements // 2), width=1, beside=beside)
