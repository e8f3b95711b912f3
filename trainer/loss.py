"""The loss of rows, as sums over supervised tokens or labels; who divides is the loop."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from trainer.batch import Batch
from trainer.kernels import Kernels
from trainer.shards import IGNORED


def training_loss(
    model: nn.Module, batch: Batch, *, task: str, kernels: Kernels, shift: int | None = None
) -> torch.Tensor:
    """Cross-entropy summed over all that the batch supervises: float32, [].

    With a fused loss the logits, B·C·vocabulary numbers, never exist at once.
    """
    if task == "causal_lm" and kernels.fused_loss:
        outputs = model(
            **batch.causal_inputs(varlen=kernels.varlen, shift=shift),
            shift_labels=batch.targets,
            num_items_in_batch=1,  # the sum, not the mean
        )
        loss: torch.Tensor = outputs.loss
        return loss.float()
    losses, _ = row_losses(model, batch, task=task, kernels=kernels, shift=shift)
    return losses.sum()


def row_losses(
    model: nn.Module, batch: Batch, *, task: str, kernels: Kernels, shift: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy summed over what each row supervises: float32, [B]; and the logits.

    The logits are [B, C, vocabulary] for causal models, at the columns of the batch, and
    [B, labels] for classification. The head is the widest matrix of a small model: computing it
    only where something is learnt took 8 to 17 % off a step of SmolLM2-135M.
    """
    if task == "sequence_classification":
        inputs: dict[str, Any] = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
        }
        logits = model(**inputs).logits
        return F.cross_entropy(logits.float(), batch.label, reduction="none"), logits
    logits = model(**batch.causal_inputs(varlen=kernels.varlen, shift=shift)).logits
    losses = F.cross_entropy(
        logits.float().flatten(0, 1),
        batch.targets.flatten(),
        ignore_index=IGNORED,
        reduction="none",
    )
    return losses.view_as(batch.targets).sum(dim=1), logits
