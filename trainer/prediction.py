"""What an adapter holds right for a text that nobody has labelled: a label, or a choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainer.batch import collate
from trainer.loss import losses_of
from trainer.opened import OpenedBase
from trainer.shards import IGNORED, Row, runs_of

Tokens = tuple[Sequence[int], Sequence[int]]
"""Token ids, and the label of each, IGNORED where nothing counts; labels are empty for a text."""

Text = tuple[Sequence[int], Sequence[int]]
"""Token ids, and of a pair which of the two each belongs to; else empty."""


def label_probabilities(
    opened: OpenedBase, name: str, texts: Sequence[Text], *, batch_size: int
) -> list[list[float]]:
    """Of each text the probability of every label, in the order of their ids; where a text can have
    several labels, of each for itself."""
    found: list[list[float]] = []
    with opened.by(name) as model:
        for rows in _batches([_row((ids, []), types) for ids, types in texts], batch_size):
            batch = collate(rows, opened.pad_token_id).to(opened.device)
            logits = model(**batch.classifier_inputs(model)).logits.float()
            each = logits.sigmoid() if opened.opening.multi_label else logits.softmax(dim=-1)
            found += each.tolist()
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
            found, _ = losses_of(
                model,
                batch,
                task="causal_lm",
                kernels=opened.kernels,
                shift=opened.shift(name),
            )
            losses += found.sum(dim=1).tolist()
    probabilities, begin = [], 0
    for question in questions:
        of_question = torch.tensor(losses[begin : begin + len(question)])
        probabilities.append(torch.softmax(-of_question, dim=0).tolist())
        begin += len(question)
    return probabilities


def _batches(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]


def _row(tokens: Tokens, token_types: Sequence[int] = ()) -> Row:
    ids, labels = tokens
    values: dict[str, Any] = {
        "input_ids": np.asarray(ids, np.int32),
        "runs": runs_of(labels),
        "lengths": np.asarray([len(ids)], np.int32),
        "samples": np.zeros(1, np.int64),
        "token_types": np.asarray(token_types, np.int8),
    }
    supervised = sum(label != IGNORED for label in labels)
    return Row(**values, supervised=supervised)
