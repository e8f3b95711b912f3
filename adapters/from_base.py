"""LoRA that begins with a part of the base's weights, which PEFT then takes out of them.

What is saved belongs to the base as its files are: a LoRA of twice the rank, which adds what was
trained and takes away what it began with (PiSSA, arXiv:2404.02948, appendix C).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from peft import LoraConfig, PeftConfig
from torch import nn

from adapters.attached import Attached, Tensors, trainable


def beside_base(
    model: nn.Module, config: PeftConfig, saved: Callable[[Tensors], Tensors]
) -> Attached:
    """A model whose adapter has its first values; `saved` is PEFT's way of naming tensors."""
    assert isinstance(config, LoraConfig)
    first = saved({name: p.detach().cpu().clone() for name, p in trainable(model).items()})
    return Attached(
        model=model, config=_doubled(config), saved=partial(_beside, saved=saved, first=first)
    )


def _beside(master: Tensors, *, saved: Callable[[Tensors], Tensors], first: Tensors) -> Tensors:
    tensors = saved(master)
    for name, values in tensors.items():
        if ".lora_A." in name:
            tensors[name] = torch.cat([values, first[name]], dim=0)
        elif ".lora_B." in name:
            tensors[name] = torch.cat([values, -first[name]], dim=1)
    return tensors


def _doubled(config: LoraConfig) -> LoraConfig:
    """Twice the rank with the same scale: alpha / r, or alpha / √r."""
    twice = copy.copy(config)
    factor = 2**0.5 if config.use_rslora else 2.0
    twice.r = 2 * config.r
    twice.lora_alpha = factor * config.lora_alpha  # type: ignore[assignment]
    twice.rank_pattern = {name: 2 * r for name, r in (config.rank_pattern or {}).items()}
    twice.alpha_pattern = {
        name: factor * alpha for name, alpha in (config.alpha_pattern or {}).items()
    }
    twice.init_lora_weights = True
    return twice
