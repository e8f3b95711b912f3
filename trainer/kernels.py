"""Which kernels a rank computes with: attention, and Liger's fused ones on GPUs that have them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from recipes.base import Base


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """A choice, made once for a rank."""

    attention: str
    """Name of the attention kernel in transformers."""

    fused: bool
    """Liger's kernels in the layers, and its loss, which computes head and cross-entropy in one."""

    fused_loss: bool
    """Whether the model at hand got that loss; known once the kernels were put into it."""

    @property
    def varlen(self) -> bool:
        """Whether the attention kernel has to be told where samples begin."""
        return self.attention.startswith("flash_attention")


def choose_kernels(base: Base, task: str, dtype: torch.dtype, device: torch.device) -> Kernels:
    """What the recipe asks for, or the fastest that this device and environment have."""
    on_gpu = device.type == "cuda"
    attention = base.attention
    if attention == "auto":
        # Half precision only, and not in every encoder; what it is for is packed causal samples.
        flash = on_gpu and dtype == torch.bfloat16 and task == "causal_lm" and _has("flash_attn")
        attention = "flash_attention_2" if flash else "sdpa"
    fused = on_gpu and task == "causal_lm" and base.kernels == "auto" and _has("liger_kernel")
    return Kernels(attention=attention, fused=fused, fused_loss=False)


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def put_into(model: PreTrainedModel, kernels: Kernels) -> Kernels:
    """Put the fused kernels into a model; the choice with `fused_loss` filled in.

    Liger knows the architectures it fits, and leaves others as they are.
    """
    if not kernels.fused:
        return kernels
    from transformers.integrations.liger import apply_liger_kernel

    apply_liger_kernel(model, {})
    # Liger brings its loss by giving this one model a forward method of its own.
    return replace(kernels, fused_loss="forward" in vars(model))
