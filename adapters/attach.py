"""Attaching a PEFT adapter to a frozen base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.tuners.boft.layer import BOFTLayer
from torch import nn
from transformers import PreTrainedModel

from adapters.base import LoadedBase, empty_base, freeze
from adapters.peft_configs import peft_config
from recipes.adapter import Adapter
from recipes.errors import AdapterError


def attach(base: LoadedBase, adapter: Adapter, *, task: str, seed: int) -> PeftModel:
    """The base with a new adapter, whose values depend on the seed alone.

    Adapter parameters are float32 whatever the base's dtype: they are the optimizer's masters.
    Raises `AdapterError` when a target or a module to save matches nothing, with near names.
    """
    config = peft_config(base.model, adapter, task)
    torch.manual_seed(seed)
    model = _adapted(base.model, config)
    _begin_new_head(model, base, seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def trained_parameters(folder: Path, adapter: Adapter, *, task: str) -> int:
    """How many numbers an adapter trains on a base, found out without reading a weight.

    Raises `AdapterError` as `attach` would, or `BaseModelError`.
    """
    with torch.device("meta"), _empty_permutations():
        model = empty_base(folder, task=task)
        freeze(model, gradient_checkpointing=False)
        config = peft_config(model, adapter, task)
        adapted = _adapted(model, config)
    return sum(p.numel() for p in adapted.parameters() if p.requires_grad)


@contextmanager
def _empty_permutations() -> Iterator[None]:
    """PEFT writes each permutation of a BOFT number by number, which `meta` does not take."""
    real = BOFTLayer.perm2mat
    BOFTLayer.perm2mat = _empty_square  # type: ignore[method-assign]
    try:
        yield
    finally:
        BOFTLayer.perm2mat = real  # type: ignore[method-assign]


def _empty_square(_: BOFTLayer, indices: torch.Tensor) -> torch.Tensor:
    return torch.empty(len(indices), len(indices))


def _adapted(model: PreTrainedModel, config: PeftConfig) -> PeftModel:
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise AdapterError(f"adapter: does not fit the base: {error}") from error


def _begin_new_head(model: nn.Module, base: LoadedBase, seed: int) -> None:
    """First values of a head the base does not hold, the same under every ZeRO stage.

    As BERT begins its own: weights normal with `initializer_range`, biases zero (arXiv:1810.04805).
    """
    spread = getattr(base.model.config, "initializer_range", 0.02)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or ".modules_to_save.default." not in name:
            continue
        plain = name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
        if plain not in base.new_parameters:
            continue
        values = torch.zeros(parameter.shape)
        if values.ndim > 1:
            values.normal_(0.0, spread, generator=generator)
        parameter.data.copy_(values)
