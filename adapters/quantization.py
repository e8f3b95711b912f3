"""Bases whose linear weights are kept in few bits, by bitsandbytes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from recipes.base import Base


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How a base is quantised, and where: bitsandbytes does it on the device that computes."""

    kind: str
    """`nf4`, `fp4` or `int8`."""
    double: bool
    device: torch.device

    def options(self, dtype: torch.dtype) -> dict[str, Any]:
        """For `from_pretrained`; `dtype` is what is computed in."""
        _quiet()
        if self.kind == "int8":
            config = BitsAndBytesConfig(load_in_8bit=True)
        else:
            config = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=self.kind,
                bnb_4bit_compute_dtype=dtype,
                bnb_4bit_use_double_quant=self.double,
            )
        # Stage 3 refuses to be told a device; bitsandbytes then takes the one that is current.
        where = {} if is_deepspeed_zero3_enabled() else {"device_map": {"": self.device}}
        return {"quantization_config": config, **where}


def quantization_of(base: Base, device: torch.device) -> Quantization | None:
    """What a recipe says of its base."""
    if base.quantization == "none":
        return None
    return Quantization(kind=base.quantization, double=base.double_quantization, device=device)


def quantized_linear(weight: torch.Tensor, kind: str, dtype: torch.dtype) -> nn.Module:
    """A frozen linear layer on the CPU as it stands in a quantised base: `weight`, float32 [out,
    in], packed; `dtype` is what is computed in."""
    import bitsandbytes

    _quiet()
    layers: Any = bitsandbytes.nn
    outputs, inputs = weight.shape
    layer: nn.Module
    if kind == "int8":
        layer = layers.Linear8bitLt(inputs, outputs, bias=False, has_fp16_weights=False)
        layer.weight = layers.Int8Params(weight.half(), requires_grad=False, has_fp16_weights=False)
    else:
        layer = layers.Linear4bit(inputs, outputs, bias=False, compute_dtype=dtype, quant_type=kind)
        layer.weight = layers.Params4bit(weight, requires_grad=False, quant_type=kind)
    keep_as_stored(layer)
    return layer.to("cpu")


def _quiet() -> None:
    """It says of every layer that int8 is computed in float16, and that a kernel is not there."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def keep_as_stored(model: nn.Module) -> None:
    """On CPUs with bfloat16 instructions bitsandbytes would pack a weight anew, in place, at the
    first evaluation, and training could not go on with it."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
