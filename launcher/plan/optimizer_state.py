"""What each optimizer keeps beside a trained parameter, and how many tensors that is on disk.

As `trainer.optimizers` builds them: tests/launcher/plan compares this with real checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from launcher.plan.base_shape import Tensor

_BLOCK = 256  # neighbours that share a scale in 8-bit AdamW (arXiv:2110.02861)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Of one parameter."""

    bytes: int
    tensors: int


def state_of(optimizer: str, tensor: Tensor) -> State:
    """The state of a parameter under a value of `train.optimizer`."""
    return _STATES[optimizer](tensor)


def state_bytes(optimizer: str, trained: Iterable[Tensor]) -> int:
    """Of all that is trained."""
    return sum(state_of(optimizer, tensor).bytes for tensor in trained)


def _adamw(tensor: Tensor) -> State:
    return State(bytes=8 * tensor.elements, tensors=2)


def _adamw_8bit(tensor: Tensor) -> State:
    # A code for each element, a scale for each block, and on disk how long the block is.
    blocks = math.ceil(tensor.elements / _BLOCK)
    return State(bytes=2 * (tensor.elements + 8 * blocks), tensors=6)


def _adafactor(tensor: Tensor) -> State:
    """A row and a column for a matrix (arXiv:1804.04235)."""
    if len(tensor.shape) < 2:
        return State(bytes=4 * tensor.elements, tensors=1)
    return State(bytes=4 * (tensor.shape[0] + tensor.elements // tensor.shape[0]), tensors=2)


def _muon(tensor: Tensor) -> State:
    """One momentum for a matrix of the adapter; AdamW for what else there is."""
    if len(tensor.shape) == 2 and ".modules_to_save." not in tensor.name:
        return State(bytes=4 * tensor.elements, tensors=1)
    return _adamw(tensor)


_STATES: dict[str, Callable[[Tensor], State]] = {
    "adamw": _adamw,
    "adamw_8bit": _adamw_8bit,
    "adafactor": _adafactor,
    "muon": _muon,
}
