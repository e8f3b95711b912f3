"""What a rank computes on, and in which precision."""

from __future__ import annotations

import os
import time

import torch
import torch.distributed as dist

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
    faster = torch.tensor([int(bfloat16_is_faster())])
    if dist.is_initialized():
        dist.broadcast(faster, src=0)
    return torch.bfloat16 if faster.item() else torch.float32


def bfloat16_is_faster() -> bool:
    """Whether this CPU multiplies bfloat16 matrices faster than float32, by trying (a few ms).

    Without bf16 instructions it is a hundred times slower, though torch offers the dtype.
    """
    return _seconds(torch.bfloat16) < 0.8 * _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    left = torch.ones(_SIDE, _SIDE, dtype=dtype)
    torch.mm(left[:64, :64], left[:64, :64])  # the first call sets up the library
    times = []
    for _ in range(3):
        start = time.perf_counter()
        torch.mm(left, left)
        times.append(time.perf_counter() - start)
    return min(times)
