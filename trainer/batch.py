"""From rows to the tensors of one micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from trainer.shards import IGNORED, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B rows filled up on the right to T tokens; all tensors int64.

    `position_ids` begin again at 0 with every sample of a row, which is how causal models keep
    packed samples apart. Padding goes on counting after the last sample: nothing before sees it.
    """

    input_ids: torch.Tensor  # [B, T]
    position_ids: torch.Tensor  # [B, T]
    attention_mask: torch.Tensor  # [B, T], 1 where a row has a token
    targets: torch.Tensor  # [B, T], what the token at each position is followed by, or IGNORED
    label: torch.Tensor  # [B], id of the label for classification, else -1

    def to(self, device: torch.device) -> Batch:
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return Batch(**moved)

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])


def collate(rows: Sequence[Row], pad_token_id: int) -> Batch:
    """The batch of at least one row."""
    width = max(len(row.input_ids) for row in rows)
    shape = (len(rows), width)
    input_ids = np.full(shape, pad_token_id, np.int64)
    position_ids = np.zeros(shape, np.int64)
    attention_mask = np.zeros(shape, np.int64)
    targets = np.full(shape, IGNORED, np.int64)
    for number, row in enumerate(rows):
        length = len(row.input_ids)
        input_ids[number, :length] = row.input_ids
        attention_mask[number, :length] = 1
        position_ids[number] = _positions(row.lengths, width)
        if len(row.labels):
            targets[number, : length - 1] = row.labels[1:]
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(position_ids),
        attention_mask=torch.from_numpy(attention_mask),
        targets=torch.from_numpy(targets),
        label=torch.tensor([row.label for row in rows]),
    )


def _positions(lengths: Sequence[int] | np.ndarray, width: int) -> np.ndarray:
    """Positions within each sample, the last one going on over the padding: int64, [width]."""
    spans = [int(length) for length in lengths]
    spans[-1] += width - sum(spans)
    return np.concatenate([np.arange(span) for span in spans])
