"""Bytes of a checkpoint, and of all that are kept."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.plan.adapter_shape import AdapterShape
from launcher.plan.optimizer_state import state_of
from recipes.checkpoint import Checkpoint
from recipes.recipe import Recipe

# Manifest and PEFT's configuration. Of safetensors' header for each tensor: dtype, shape, offsets.
_TEXT_BYTES = 2000
_ENTRY_BYTES = 74
# Before the name of a parameter: what the tensor is of it, such as exp_avg_sq.
_KIND_BYTES = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    checkpoint_bytes: int
    kept: int
    """Checkpoints that are there at the end of a run."""
    room_bytes: int | None
    """Free where they will lie; None when that is not known."""

    @property
    def needed_bytes(self) -> int:
        """One more is written before the oldest goes."""
        return (self.kept + 1) * self.checkpoint_bytes


def checkpoint_bytes(adapter: AdapterShape, optimizer: str) -> int:
    """Adapter, masters and optimizer state, the names of their tensors, and two small texts."""
    total = _TEXT_BYTES + adapter.text_bytes
    for tensor in adapter.saved:
        name = tensor.name.replace(".default", "")
        total += 4 * tensor.elements + _ENTRY_BYTES + len(name)
    for tensor in adapter.trained:
        state = state_of(optimizer, tensor)
        kinds = 1 + adapter.rank_kinds
        total += 4 * kinds * tensor.elements + state.bytes
        entry = _ENTRY_BYTES + _KIND_BYTES + len(tensor.name)
        total += (kinds + state.tensors) * entry
    return total


def kept_checkpoints(checkpoint: Checkpoint, steps: int | None) -> int:
    """How many checkpoints a run of so many steps keeps at most; `steps` may not be known yet."""
    kept = checkpoint.keep + checkpoint.keep_best
    if checkpoint.keep_every_steps and steps:
        kept += steps // checkpoint.keep_every_steps
    return kept


def disk_of(
    recipe: Recipe, adapter: AdapterShape, *, steps: int | None, room_bytes: int | None
) -> Disk:
    """What a run leaves on disk."""
    return Disk(
        checkpoint_bytes=checkpoint_bytes(adapter, recipe.train.optimizer),
        kept=kept_checkpoints(recipe.checkpoint, steps),
        room_bytes=room_bytes,
    )
