"""What the model does on the held-out rows: loss, perplexity, accuracy and F1."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn

from trainer.batch import Batch, collate
from trainer.engine import Engine
from trainer.label_scores import label_scores, label_set_scores
from trainer.loss import is_multi_label, labels_given, losses_of
from trainer.shards import Row
from trainer.split import Split


@dataclass(frozen=True, slots=True)
class Scored:
    """One held-out row after the forward pass."""

    index: int
    samples: tuple[int, ...]
    sources: tuple[int, ...]  # of each sample
    loss: float  # summed over its supervised tokens
    supervised: int
    parts: Mapping[int, tuple[float, int]]  # of each source, what it has of these two
    choice: int
    right: tuple[int, ...] | None  # the right labels, or the right choice; None if it names none
    predicted: tuple[int, ...]  # the labels it was given; empty for causal models


def score_rows(
    engine: Engine,
    split: Split,
    *,
    task: str,
    batch_size: int,
    pad_token_id: int,
    progress: Callable[[int, int], None],
) -> list[Scored]:
    """Every row of the split in its order, each computed by one rank; the same on all. Collective.

    Batches are of rows of similar length, the longest first: what does not fit into memory is known
    at once. They go round the ranks; a rank without one in the last round computes the first again,
    because under ZeRO 3 a forward pass needs all of them.
    """
    engine.model.eval()
    by_length = np.argsort(-split.tokens.astype(np.int64), kind="stable").tolist()
    batches = [by_length[first : first + batch_size] for first in range(0, len(split), batch_size)]
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
    batch = collate(rows, pad_token_id)
    with engine.precision():
        losses, logits = losses_of(
            engine.deepspeed,
            batch.to(engine.device),
            task=task,
            kernels=engine.kernels,
            shift=engine.shift,
        )
    predicted: list[tuple[int, ...]] = [()] * len(rows)
    if task == "sequence_classification":
        predicted = labels_given(engine.deepspeed, logits)
    sums = losses.sum(dim=1).tolist()
    parts = _parts(losses.double().cpu().numpy(), batch)
    return [
        Scored(
            index=index,
            samples=tuple(row.samples.tolist()),
            sources=tuple(row.sources.tolist()),
            loss=sums[place],
            supervised=row.supervised,
            parts=parts[place],
            choice=row.choice,
            right=_right(engine.deepspeed, row, task),
            predicted=predicted[place],
        )
        for place, (index, row) in enumerate(zip(indices, rows, strict=True))
    ]


def _parts(losses: npt.NDArray[np.float64], batch: Batch) -> list[dict[int, tuple[float, int]]]:
    """Of each row, what is lost and learnt of the samples of each source."""
    found = []
    for lost, learnt, sources in zip(
        losses, batch.learnt.numpy(), batch.sources.numpy(), strict=True
    ):
        sums = np.bincount(sources[learnt], lost[learnt])
        counts = np.bincount(sources[learnt])
        found.append({int(s): (float(sums[s]), int(counts[s])) for s in np.flatnonzero(counts)})
    return found


def _right(model: nn.Module, row: Row, task: str) -> tuple[int, ...] | None:
    if task == "sequence_classification" and is_multi_label(model):
        return tuple(row.label_set.tolist())
    number = row.label if task == "sequence_classification" else row.answer
    return (number,) if number >= 0 else None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model holds right for one sample: numbers of labels, or of one choice."""

    sample: int
    source: int
    right: tuple[int, ...]
    predicted: tuple[int, ...]


def predictions(rows: Iterable[Scored]) -> list[Prediction]:
    """One prediction for each sample that has labels or choices.

    Among choices the one with the highest likelihood of its whole text, the end of turn included.
    """
    groups: dict[int, list[Scored]] = defaultdict(list)
    for row in rows:
        if row.right is not None:
            groups[row.samples[0]].append(row)
    return [
        Prediction(sample, group[0].sources[0], group[0].right or (), _likeliest(group))
        for sample, group in groups.items()
    ]


def _likeliest(group: Sequence[Scored]) -> tuple[int, ...]:
    if group[0].choice < 0:
        return group[0].predicted
    return (min(group, key=lambda row: row.loss).choice,)


def scores(rows: Sequence[Scored], *, is_causal: bool, multi_label: bool) -> dict[str, float]:
    """Loss (nats per supervised token or label), perplexity, and how well labels or choices are
    predicted, as far as the rows have them; of the rows with choices only the right one counts for
    the loss."""
    counted = _counted(rows)
    supervised = sum(row.supervised for row in counted)
    loss = sum(row.loss for row in counted) / max(1, supervised)
    found: dict[str, float] = {"rows": float(len(counted)), "loss": loss}
    if is_causal:
        found["perplexity"] = math.exp(min(loss, 700.0))
    return found | _of_predictions(predictions(rows), multi_label=multi_label)


def scores_by_source(
    rows: Sequence[Scored], names: Sequence[str], *, multi_label: bool
) -> dict[str, dict[str, float]]:
    """The same of each source's samples, by its name, which several may share; nothing where
    one name is that of all."""
    counted = _counted(rows)
    samples = Counter(names[source] for row in counted for source in row.sources)
    if len(samples) < 2:
        return {}
    predicted = predictions(rows)
    found = {}
    for called in (name for name in dict.fromkeys(names) if name in samples):
        ours = {source for source, name in enumerate(names) if name == called}
        parts = [part for row in counted for source, part in row.parts.items() if source in ours]
        loss = sum(lost for lost, _ in parts) / max(1, sum(learnt for _, learnt in parts))
        own = [prediction for prediction in predicted if prediction.source in ours]
        found[called] = {
            "samples": float(samples[called]),
            "loss": loss,
            **_of_predictions(own, multi_label=multi_label),
        }
    return found


def _counted(rows: Sequence[Scored]) -> list[Scored]:
    return [row for row in rows if row.choice < 0 or row.right == (row.choice,)]


def _of_predictions(predicted: Sequence[Prediction], *, multi_label: bool) -> dict[str, float]:
    if not predicted:
        return {}
    right, guess = [p.right for p in predicted], [p.predicted for p in predicted]
    if multi_label:
        return label_set_scores(right, guess)
    return label_scores([number for (number,) in right], [number for (number,) in guess])
