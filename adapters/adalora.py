"""AdaLoRA's ranks: lowered by PEFT's allocator, kept in checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from peft import AdaLoraConfig, PeftConfig, PeftModel

from adapters.attached import PREFIX, Attached, Tensors, trainable

_IMPORTANCE, _UNCERTAINTY, _KEPT = "importance", "uncertainty", "kept"
KINDS = (_IMPORTANCE, _UNCERTAINTY, _KEPT)
"""Kinds of a checkpoint's tensors that are the allocator's."""


class AllocatedRanks:
    """The ranks of one AdaLoRA model; PEFT's allocator judges them by whole gradients."""

    def __init__(self, model: PeftModel, orthogonality: float) -> None:
        self._model: Any = model.base_model
        self._orthogonality = orthogonality
        self._matrices = [
            (parameter, ".lora_A." in name)
            for name, parameter in trainable(model).items()
            if ".lora_A." in name or ".lora_B." in name
        ]

    def penalty(self) -> torch.Tensor:
        """The mean distance of the matrices from orthogonal ones (arXiv:2303.10512, eq. 4, as PEFT
        computes it: the norm, not its square)."""
        distances = []
        for matrix, is_a in self._matrices:
            product = matrix @ matrix.T if is_a else matrix.T @ matrix
            distances.append(torch.norm(product - torch.eye(len(product), device=product.device)))
        return self._orthogonality * torch.stack(distances).mean()

    def lower(self, step: int) -> None:
        """See `adapters.attached.Ranks`."""
        self._model.update_and_allocate(step)

    def state(self) -> dict[str, Tensors]:
        """See `adapters.attached.Ranks`."""
        allocator = self._model.rankallocator
        kept = (self._config().rank_pattern or {}).items()
        return {
            _IMPORTANCE: _named(allocator.exp_avg_ipt),
            _UNCERTAINTY: _named(allocator.exp_avg_unc),
            _KEPT: _named({name: torch.tensor(mask, dtype=torch.float32) for name, mask in kept}),
        }

    def restore(self, state: Mapping[str, Tensors]) -> None:
        """See `adapters.attached.Ranks`."""
        allocator = self._model.rankallocator
        device = self._matrices[0][0].device
        for kind, averages in (
            (_IMPORTANCE, allocator.exp_avg_ipt),
            (_UNCERTAINTY, allocator.exp_avg_unc),
        ):
            for name, values in state.get(kind, {}).items():
                averages[name.removeprefix(PREFIX)] = values.to(device)
        allocator.ipt = {name: torch.zeros_like(v) for name, v in allocator.exp_avg_ipt.items()}
        kept = state.get(_KEPT, {})
        if kept:
            self._config().rank_pattern = {
                name.removeprefix(PREFIX): mask.bool().tolist() for name, mask in kept.items()
            }

    def _config(self) -> AdaLoraConfig:
        config: AdaLoraConfig = self._model.peft_config["default"]
        return config


def with_ranks(model: PeftModel, config: PeftConfig, orthogonality: float) -> Attached:
    """A model with its allocator. It is saved with the ranks it began with, zeros among them:
    PEFT's own way shortens tensors by a pattern that changes while they are written."""
    return Attached(
        model=model,
        config=copy.copy(config),
        saved=_saved,
        ranks=AllocatedRanks(model, orthogonality),
    )


def _saved(master: Tensors) -> Tensors:
    return {
        name.replace(".modules_to_save.default", "").replace(".default", ""): values
        for name, values in master.items()
    }


def _named(values: Mapping[str, torch.Tensor]) -> Tensors:
    return {f"{PREFIX}{name}": value.detach().cpu().clone() for name, value in values.items()}
