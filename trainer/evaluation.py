"""What the model does on the held-out rows: loss, perplexity, accuracy and F1."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from trainer.batch import collate
from trainer.engine import Engine
from trainer.loss import row_losses
from trainer.shards import Row
from trainer.split import Split


@dataclass(frozen=True, slots=True)
class Scored:
    """One held-out row after the forward pass."""

    index: int
    samples: tuple[int, ...]
    loss: float  # summed over its supervised tokens
    supervised: int
    choice: int
    answer: int  # the right label or choice, or -1
    predicted: int  # the likeliest label, or -1 for causal models


def score_rows(
    engine: Engine,
    split: Split,
    *,
    task: str,
    batch_size: int,
    pad_token_id: int,
    progress: Callable[[int, int], None],
) -> list[Scored]:
    """Every row of the split, each computed by one rank; the same list on all. Collective.

    Batches go round the ranks; a rank without one in the last round computes the first again,
    because under ZeRO 3 a forward pass needs all of them.
    """
    engine.model.eval()
    batches = [
        list(range(first, min(first + batch_size, len(split))))
        for first in range(0, len(split), batch_size)
    ]
    rounds = math.ceil(len(batches) / dist.get_world_size())
    own: list[Scored] = []
    for turn in range(rounds):
        number = turn * dist.get_world_size() + dist.get_rank()
        weighs = number < len(batches)
        indices = batches[number if weighs else 0]
        rows = [split[index] for index in indices]
        scored = _score(engine, indices, rows, task=task, pad_token_id=pad_token_id)
        own += scored if weighs else []
        progress(turn + 1, rounds)
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, own)
    return sorted((row for part in gathered for row in part), key=lambda row: row.index)


@torch.no_grad()
def _score(
    engine: Engine, indices: Sequence[int], rows: Sequence[Row], *, task: str, pad_token_id: int
) -> list[Scored]:
    batch = collate(rows, pad_token_id).to(engine.device)
    with engine.precision():
        losses, logits = row_losses(
            engine.deepspeed, batch, task=task, kernels=engine.kernels, shift=engine.shift
        )
    is_label = task == "sequence_classification"
    predicted = logits.argmax(dim=-1).tolist() if is_label else [-1] * len(rows)
    return [
        Scored(
            index=index,
            samples=tuple(row.samples.tolist()),
            loss=loss,
            supervised=row.supervised,
            choice=row.choice,
            answer=row.label if is_label else row.answer,
            predicted=label,
        )
        for index, row, loss, label in zip(indices, rows, losses.tolist(), predicted, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model holds right for one sample: numbers of labels or choices."""

    sample: int
    answer: int
    predicted: int


def predictions(rows: Iterable[Scored]) -> list[Prediction]:
    """One prediction for each sample that has a label or choices.

    Among choices the one with the highest likelihood of its whole text, the end of turn included.
    """
    groups: dict[int, list[Scored]] = defaultdict(list)
    for row in rows:
        if row.answer >= 0:
            groups[row.samples[0]].append(row)
    return [
        Prediction(sample, group[0].answer, _likeliest(group)) for sample, group in groups.items()
    ]


def _likeliest(group: Sequence[Scored]) -> int:
    if group[0].choice < 0:
        return group[0].predicted
    return min(group, key=lambda row: row.loss).choice


def scores(rows: Sequence[Scored]) -> dict[str, float]:
    """Loss (nats per supervised token or label), perplexity, accuracy and macro F1, as far as the
    rows have them; of the rows with choices only the right one counts for the loss."""
    right = [row for row in rows if row.choice == row.answer or row.choice < 0]
    supervised = sum(row.supervised for row in right)
    loss = sum(row.loss for row in right) / max(1, supervised)
    found: dict[str, float] = {"rows": float(len(right)), "loss": loss}
    is_causal = all(row.predicted < 0 for row in rows)
    if is_causal:
        found["perplexity"] = math.exp(min(loss, 700.0))
    predicted = predictions(rows)
    if predicted:
        from sklearn.metrics import accuracy_score, f1_score  # 1 s that a first step need not wait

        truth = [prediction.answer for prediction in predicted]
        guess = [prediction.predicted for prediction in predicted]
        found["accuracy"] = float(accuracy_score(truth, guess))
        found["f1"] = float(f1_score(truth, guess, average="macro", zero_division=0.0))
    return found
