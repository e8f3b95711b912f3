"""What an adapter holds right for a text that nobody has labelled: a label, or a choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainer.batch import collate
from trainer.loss import row_losses
from trainer.opened import OpenedBase
from trainer.shards import IGNORED, Row, runs_of

Tokens = tuple[Sequence[int], Sequence[int]]
"""Token ids, and the label of each, IGNORED where nothing counts; labels are empty for a text."""


def label_probabilities(
    opened: OpenedBase, name: str, texts: Sequence[Sequence[int]], *, batch_size: int
) -> list[list[float]]:
    """Of each text (token ids) the probability of every label, in the order of their ids."""
    found: list[list[float]] = []
    with opened.by(name) as model:
        for rows in _batches([_row((ids, [])) for ids in texts], batch_size):
            batch = collate(rows, opened.pad_token_id).to(opened.device)
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            found += torch.softmax(logits.float(), dim=-1).tolist()
    return found


def choice_probabilities(
    opened: OpenedBase, name: str, questions: Sequence[Sequence[Tokens]], *, batch_size: int
) -> list[list[float]]:
    """Of each question, given once with each answer there is, the probability of every answer.

    As an evaluation has it: by the likelihood of the whole answer, the end of its turn included.
    """
    rows = [_row(tokens) for question in questions for tokens in question]
    losses: list[float] = []
    with opened.by(name) as model:
        for batch_rows in _batches(rows, batch_size):
            batch = collate(batch_rows, opened.pad_token_id).to(opened.device)
            found, _ = row_losses(
                model,
                batch,
                task="causal_lm",
                kernels=opened.kernels,
                shift=opened.shift(name),
            )
            losses += found.tolist()
    probabilities, begin = [], 0
    for question in questions:
        of_question = torch.tensor(losses[begin : begin + len(question)])
        probabilities.append(torch.softmax(-of_question, dim=0).tolist())
        begin += len(question)
    return probabilities


def _batches(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]


def _row(tokens: Tokens) -> Row:
    ids, labels = tokens
    values: dict[str, Any] = {
        "input_ids": np.asarray(ids, np.int32),
        "runs": runs_of(labels),
        "lengths": np.asarray([len(ids)], np.int32),
        "samples": np.zeros(1, np.int64),
    }
    supervised = sum(label != IGNORED for label in labels)
    return Row(**values, supervised=supervised)
