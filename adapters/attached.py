"""A base with what is trained on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from peft import PeftConfig
from torch import nn

Tensors = dict[str, torch.Tensor]

PREFIX = "base_model.model."
"""Before the names of a base's parameters in a PEFT model."""


class Ranks(Protocol):
    """What lowers ranks while an adapter is trained."""

    def penalty(self) -> torch.Tensor:
        """What is added to the loss of every micro-batch: float32, []."""
        ...

    def lower(self, step: int) -> None:
        """After the optimizer stepped for the `step`th time, counted from 0; gradients are still
        there."""
        ...

    def state(self) -> dict[str, Tensors]:
        """What has to be kept to go on, by kind and name of the parameter."""
        ...

    def restore(self, state: Mapping[str, Tensors]) -> None:
        """Go on from what `state` gave."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PeftAdapter:
    """What PEFT opens, apart from any model."""

    config: PeftConfig
    tensors: Tensors
    tokenizer: Any = None
    """Of an adapter that adds tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """The model that is trained: its parameters that need a gradient are the adapter."""

    model: nn.Module
    config: PeftConfig
    """By which PEFT opens what is saved."""
    saved: Callable[[Tensors], Tensors]
    """From the values of what is trained, by name, to the tensors that PEFT opens. It looks through
    the model, so not while that computes: experts' stacks get and lose modules in their forward."""
    tokenizer: Any = None
    """The base's with the tokens that the adapter adds, if it does."""
    ranks: Ranks | None = None
    """Of a kind that moves them while it trains."""


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name, in the order of the model."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
