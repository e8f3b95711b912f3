"""AdamW with its two moments in 8 bits (bitsandbytes, arXiv:2110.02861), and its state on disk.

A moment is a code of one byte for each element, and for each block of 256 neighbours the largest
absolute value, which the codes are parts of. Codes cannot be found again from the values they stand
for, so a checkpoint holds the codes themselves and, for each element, its block's largest value: in
the order of the parameter as runs of equal values. The same workers and stage form the same blocks
and go on bit by bit. Others cut the parameters otherwise; a block that unites elements of several
old ones is made anew from the values, at the cost of one more rounding to 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch.optim import Optimizer

from recipes.train import Train

_BLOCK = 256
# What bitsandbytes calls 1 and 2, and whether its values have a sign.
_MOMENTS = {"exp_avg": ("1", True), "exp_avg_sq": ("2", False)}


def eight_bit_adamw(groups: list[dict[str, Any]], train: Train) -> Optimizer:
    """bitsandbytes' AdamW. It works on CPUs too (0.50), by unpacking the state for each step."""
    from bitsandbytes.optim.adamw import AdamW8bit

    return AdamW8bit(
        groups,
        lr=train.learning_rate,
        betas=(train.betas[0], train.betas[1]),
        eps=train.eps,
        weight_decay=train.weight_decay,
        # By default small tensors keep float32 state, and what is small would depend on the stage.
        min_8bit_size=0,
    )


class EightBitState:
    """The state's form, see `trainer.optimizers.StateForm`."""

    kinds = ("exp_avg_code", "exp_avg_largest", "exp_avg_sq_code", "exp_avg_sq_largest")

    def read(self, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """float32 for all, as ranks add them up: codes 0 to 255, and the largest of the block."""
        values = {}
        for moment, (number, _) in _MOMENTS.items():
            codes = state[f"state{number}"]
            largest = state[f"absmax{number}"].repeat_interleave(_BLOCK)[: codes.numel()]
            values[f"{moment}_code"] = codes.float()
            values[f"{moment}_largest"] = largest.reshape(codes.shape)
        return values

    def begin(
        self, stepped: torch.Tensor, values: dict[str, torch.Tensor], step: int, fused: bool
    ) -> dict[str, Any]:
        state: dict[str, Any] = {"step": step}
        for moment, (number, signed) in _MOMENTS.items():
            table = _table(signed).to(stepped.device)
            codes, largest = _blocks(
                values[f"{moment}_code"].to(stepped.device).flatten(),
                values[f"{moment}_largest"].to(stepped.device).flatten(),
                table,
            )
            state[f"state{number}"] = codes.reshape(stepped.shape)
            state[f"absmax{number}"] = largest
            state[f"qmap{number}"] = table
        return state

    def pack(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        packed = {}
        for moment in _MOMENTS:
            packed[f"{moment}_code"] = values[f"{moment}_code"].to(torch.uint8)
            largest, lengths = torch.unique_consecutive(
                values[f"{moment}_largest"].flatten(), return_counts=True
            )
            packed[f"{moment}_largest"] = largest
            packed[f"{moment}_run"] = lengths.to(torch.int32)
        return packed

    def unpack(self, packed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        values = {}
        for moment in _MOMENTS:
            codes = packed[f"{moment}_code"]
            largest = packed[f"{moment}_largest"].repeat_interleave(packed[f"{moment}_run"])
            values[f"{moment}_code"] = codes.float()
            values[f"{moment}_largest"] = largest.reshape(codes.shape)
        return values


def _table(signed: bool) -> torch.Tensor:
    """The value of each code, float32 (256,), in parts of the block's largest."""
    from bitsandbytes.functional import create_dynamic_map

    return create_dynamic_map(signed=signed)  # type: ignore[no-any-return]


def _blocks(
    codes: torch.Tensor, largest: torch.Tensor, table: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (n,) uint8 and the largest value of each block of 256, from those of each element.

    An element whose own largest is 0 is 0: a block that never had a gradient, or DeepSpeed's
    padding, which no parameter covers.
    """
    size = codes.numel()
    padding = (0, -size % _BLOCK)
    own = F.pad(largest, padding).reshape(-1, _BLOCK)
    kept = F.pad(codes, padding).reshape(-1, _BLOCK).to(torch.uint8)
    of_block = own.amax(dim=1)
    zero = torch.tensor(int(table.abs().argmin()), dtype=torch.uint8, device=codes.device)
    kept = torch.where((own == 0) & (of_block[:, None] > 0), zero, kept)
    united = ((own != of_block[:, None]) & (own != 0)).any(dim=1)
    if united.any():
        values = table[kept[united].long()] * own[united]
        of_block[united] = values.abs().amax(dim=1)
        # The nearest code. bitsandbytes' own function for CPUs makes 2e-5 of the largest from 0.
        middles = (table[1:] + table[:-1]) / 2
        scaled = values / of_block[united, None]
        kept[united] = torch.bucketize(scaled, middles).to(torch.uint8)
    return kept.flatten()[:size].contiguous(), of_block
