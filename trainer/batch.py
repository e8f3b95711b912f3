"""From rows to the tensors of one micro-batch.

Everything that needs counting is counted here, on the CPU: a question asked of a tensor on the GPU
waits for all the work queued there.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from trainer.shards import IGNORED, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B rows filled up on the right to T tokens; tensors are int64 unless said otherwise.

    `position_ids` begin again at 0 with every sample of a row, which is how causal models keep
    packed samples apart. Padding goes on counting after the last sample: nothing before sees it.
    """

    input_ids: torch.Tensor  # [B, T]
    position_ids: torch.Tensor  # [B, T]
    attention_mask: torch.Tensor  # [B, T], 1 where a row has a token
    token_types: torch.Tensor | None  # [B, T], which of two texts; None where there is one
    label: torch.Tensor  # [B], id of the label for classification, else -1
    label_sets: torch.Tensor  # [2, K], where rows have several: the row, and a label it has
    columns: torch.Tensor  # [C], the positions at which any row learns something; never empty
    targets: torch.Tensor  # [B, C], what is learnt there: the next token, or IGNORED
    learnt: torch.Tensor  # [B, C] bool, where that is something; [B, 1] for classification, true
    sources: torch.Tensor  # [B, C], number of the source that it comes from
    boundaries: torch.Tensor  # [S + 1] int32, where samples begin in the B·T tokens, and their end
    longest: int  # the longest of these samples, padding counted
    num_tokens: int  # padding not counted

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                values[name] = value.to(device, non_blocking=True)
        return Batch(**values)

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])

    def classifier_inputs(self, model: nn.Module) -> dict[str, Any]:
        """Arguments for a model that classifies; token types only if it knows them."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if self.token_types is not None and _takes_token_types(base_model(model)):
            inputs["token_type_ids"] = self.token_types
        return inputs

    def causal_inputs(self, *, varlen: bool, shift: int | None) -> dict[str, Any]:
        """Arguments for a causal model that leave out the logits nobody looks at.

        With virtual tokens, `shift` is by how many positions they move those of the text; the model
        counts positions by itself then, and a row holds one sample.

        No attention mask: transformers keeps packed samples apart by their positions only when
        there is none, and no cache. Kernels of the flash_attention family do so by themselves only
        for a batch of one row; with `varlen` they are told where every sample begins.
        """
        inputs: dict[str, Any] = {"input_ids": self.input_ids, "use_cache": False}
        if shift is not None:
            return inputs | {"logits_to_keep": self.columns + shift}
        inputs |= {"position_ids": self.position_ids, "logits_to_keep": self.columns}
        if varlen:
            inputs |= {
                "cu_seq_lens_q": self.boundaries,
                "cu_seq_lens_k": self.boundaries,
                "max_length_q": self.longest,
                "max_length_k": self.longest,
            }
        return inputs


def base_model(model: nn.Module) -> PreTrainedModel:
    """The model of transformers inside an engine, an adapter, or nothing."""
    return next(module for module in model.modules() if isinstance(module, PreTrainedModel))


def _takes_token_types(model: PreTrainedModel) -> bool:
    return "token_type_ids" in inspect.signature(type(model).forward).parameters


def collate(rows: Sequence[Row], pad_token_id: int) -> Batch:
    """The batch of at least one row."""
    width = max(len(row.input_ids) for row in rows)
    shape = (len(rows), width)
    input_ids = np.full(shape, pad_token_id, np.int64)
    attention_mask = np.zeros(shape, np.int64)
    targets = np.full(shape, IGNORED, np.int64)
    sources = np.zeros(shape, np.int64)
    for number, row in enumerate(rows):
        length = len(row.input_ids)
        input_ids[number, :length] = row.input_ids
        attention_mask[number, :length] = 1
        if len(row.runs):
            targets[number, : length - 1] = row.labels[1:]
        if len(row.sources):
            sources[number, :length] = np.repeat(row.sources, row.lengths)
    spans = [span for row in rows for span in _spans(row, width)]
    columns = np.flatnonzero((targets != IGNORED).any(axis=0))
    if len(columns) == 0:
        columns = np.zeros(1, np.int64)
    targets = targets.take(columns, axis=1)
    is_label = np.array([not len(row.runs) for row in rows])
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(np.concatenate([np.arange(s) for s in spans]).reshape(shape)),
        attention_mask=torch.from_numpy(attention_mask),
        token_types=_token_types(rows, shape),
        label=torch.tensor([row.label for row in rows]),
        label_sets=torch.tensor(
            [(n, label) for n, row in enumerate(rows) for label in row.label_set.tolist()],
            dtype=torch.int64,
        )
        .view(-1, 2)
        .T,
        columns=torch.from_numpy(columns),
        # Contiguous: a fused loss flattens it without a copy.
        targets=torch.from_numpy(targets),
        learnt=torch.from_numpy(is_label[:, None] | (targets != IGNORED)),
        sources=torch.from_numpy(sources.take(columns, axis=1)),
        boundaries=torch.from_numpy(np.cumsum([0, *spans], dtype=np.int32)),
        longest=max(spans),
        num_tokens=int(attention_mask.sum()),
    )


def _token_types(rows: Sequence[Row], shape: tuple[int, int]) -> torch.Tensor | None:
    if not any(len(row.token_types) for row in rows):
        return None
    found = np.zeros(shape, np.int64)
    for number, row in enumerate(rows):
        found[number, : len(row.token_types)] = row.token_types
    return torch.from_numpy(found)


def _spans(row: Row, width: int) -> list[int]:
    """Tokens of each sample of a row, the padding counted to the last one."""
    spans = [int(length) for length in row.lengths]
    spans[-1] += width - sum(spans)
    return spans
