"""Parameters that ZeRO stage 3 may have sharded while the base was loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def shape_of(parameter: nn.Parameter) -> torch.Size:
    """The shape of the whole parameter."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


@contextmanager
def whole(parameter: nn.Parameter, *, write: bool = False) -> Iterator[torch.Tensor]:
    """The values of a parameter, whole on every rank. Collective if it is sharded.

    What is written to it is lost unless `write` is said; then rank 0's counts.
    """
    if not hasattr(parameter, "ds_shape"):
        yield parameter.data
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters([parameter], modifier_rank=0 if write else None):
        yield parameter.data
