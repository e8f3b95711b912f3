"""A base with what is trained on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from peft import PeftConfig
from torch import nn

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """The model that is trained: its parameters that need a gradient are the adapter."""

    model: nn.Module
    config: PeftConfig
    """By which PEFT opens what is saved."""
    saved: Callable[[Tensors], Tensors]
    """From the values of what is trained, by name, to the tensors that PEFT opens."""


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name, in the order of the model."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
