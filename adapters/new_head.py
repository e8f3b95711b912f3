"""First values of a head the base does not hold, the same under every ZeRO stage."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from adapters.base import LoadedBase
from adapters.sharded import shape_of, whole


def begin_new_head(
    base: LoadedBase, parameters: Iterable[tuple[str, nn.Parameter]], seed: int
) -> None:
    """Of parameters, by their names in the base, give those that are new their first values.

    As BERT begins its own: weights normal with `initializer_range`, biases zero (arXiv:1810.04805).
    """
    spread = getattr(base.model.config, "initializer_range", 0.02)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in parameters:
        if name not in base.new_parameters:
            continue
        first = torch.zeros(shape_of(parameter))
        if first.ndim > 1:
            first.normal_(0.0, spread, generator=generator)
        with whole(parameter, write=True) as values:
            values.copy_(first)
