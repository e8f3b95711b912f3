"""What a rank computes on, and in which precision."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from adapters.quantization import quantized_linear
from recipes.base import Base

_SIDE = 512


def rank_device() -> torch.device:
    """The device of this rank: its own GPU when there is one, as Ray Train assigned them."""
    if torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")


def choose_dtype(base: Base, device: torch.device) -> torch.dtype:
    """The dtype of base and activations; `auto` is decided by rank 0 for all."""
    if base.dtype != "auto":
        return torch.float32 if base.dtype == "float32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    faster = torch.tensor([int(bfloat16_is_faster(base.quantization))])
    if dist.is_initialized():
        dist.broadcast(faster, src=0)
    return torch.bfloat16 if faster.item() else torch.float32


def bfloat16_is_faster(quantization: str = "none") -> bool:
    """Whether this CPU multiplies with weights of a kind faster in bfloat16 than in float32, by
    trying (some ms).

    Without bf16 instructions plain products are a hundred times slower, though torch offers the
    dtype. With AVX512-BF16 they took 0.4 to 0.5 of the time, and those with packed weights, which
    are unpacked first, 0.5.
    """
    return _seconds(torch.bfloat16, quantization) < 0.8 * _seconds(torch.float32, quantization)


def _seconds(dtype: torch.dtype, quantization: str) -> float:
    multiply = product(dtype, quantization)
    multiply()  # the first call sets up the library
    times = []
    for _ in range(3):
        start = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - start)
    return min(times)


def product(dtype: torch.dtype, quantization: str) -> Callable[[], torch.Tensor]:
    """A product of two square matrices, the right one kept as a base of that quantisation keeps its
    weights."""
    left = torch.ones(_SIDE, _SIDE, dtype=dtype)
    if quantization == "none":
        return lambda: torch.mm(left, left)
    layer = quantized_linear(torch.ones(_SIDE, _SIDE), quantization, dtype)
    return lambda: layer(left)
