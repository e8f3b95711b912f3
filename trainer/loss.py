"""The loss of rows, as sums over supervised tokens or labels; who divides is the loop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from adapters.classification import MULTI_LABEL
from trainer.batch import Batch, base_model
from trainer.kernels import Kernels
from trainer.shards import IGNORED


def training_loss(
    model: nn.Module, batch: Batch, *, task: str, kernels: Kernels, shift: int | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Cross-entropy summed over all that the batch supervises: float32, []; and of what it is the
    sum, as `losses_of` has it.

    With a fused loss the logits, B·C·vocabulary numbers, never exist at once, and neither do the
    losses of single tokens: there is the sum alone.
    """
    if task == "causal_lm" and kernels.fused_loss:
        outputs = model(
            **batch.causal_inputs(varlen=kernels.varlen, shift=shift),
            shift_labels=batch.targets,
            num_items_in_batch=1,  # the sum, not the mean
        )
        loss: torch.Tensor = outputs.loss
        return loss.float(), None
    losses, _ = losses_of(model, batch, task=task, kernels=kernels, shift=shift)
    return losses.sum(), losses


def losses_of(
    model: nn.Module, batch: Batch, *, task: str, kernels: Kernels, shift: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy at the columns of the batch, zero where nothing is learnt: float32, [B, C], or
    [B, 1] for classification; and the logits.

    The logits are [B, C, vocabulary] for causal models, at the columns of the batch, and
    [B, labels] for classification. The head is the widest matrix of a small model: computing it
    only where something is learnt took 8 to 17 % off a step of SmolLM2-135M.
    """
    if task == "sequence_classification":
        logits = model(**batch.classifier_inputs(model)).logits
        return _label_losses(model, logits.float(), batch)[:, None], logits
    logits = model(**batch.causal_inputs(varlen=kernels.varlen, shift=shift)).logits
    losses = F.cross_entropy(
        logits.float().flatten(0, 1),
        batch.targets.flatten(),
        ignore_index=IGNORED,
        reduction="none",
    )
    return losses.view_as(batch.targets), logits


def _label_losses(model: nn.Module, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Of each row: of its one label, or the mean over all labels of whether it has them; [B]."""
    if not is_multi_label(model):
        return F.cross_entropy(logits, batch.label, reduction="none")
    wanted = torch.zeros_like(logits)
    wanted[batch.label_sets[0], batch.label_sets[1]] = 1.0
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)


def is_multi_label(model: nn.Module) -> bool:
    """Whether a classifier gives a text as many labels as fit."""
    return bool(base_model(model).config.problem_type == MULTI_LABEL)


def labels_given(model: nn.Module, logits: torch.Tensor) -> list[tuple[int, ...]]:
    """Of each row its likeliest label, or all that are likelier than not; ids, ascending."""
    if not is_multi_label(model):
        return [(label,) for label in logits.argmax(dim=-1).tolist()]
    return [tuple(row.nonzero().flatten().tolist()) for row in (logits > 0).cpu()]


def sums_by_source(losses: torch.Tensor, batch: Batch, num_sources: int) -> torch.Tensor:
    """What `losses_of` found and how many tokens or labels that is, of each source: float64,
    [2, num_sources]. Sums are taken in a fixed order, on a GPU too."""
    of_source = batch.sources.flatten() == torch.arange(num_sources, device=losses.device)[:, None]
    parts = torch.stack([losses.detach().double(), batch.learnt.double()]).flatten(1)
    return (parts[:, None] * of_source).sum(dim=2)


def means_by_name(
    names: Sequence[str], losses: Sequence[float], counts: Sequence[float]
) -> dict[str, float]:
    """The mean loss of each name of a source that has any; several sources may share one."""
    sums: dict[str, tuple[float, float]] = {}
    for name, loss, count in zip(names, losses, counts, strict=True):
        lost, learnt = sums.get(name, (0.0, 0.0))
        sums[name] = lost + loss, learnt + count
    return {name: lost / learnt for name, (lost, learnt) in sums.items() if learnt}
