"""How long and how fast to train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    steps: int | None = None
    """Optimizer steps; give this or epochs."""

    epochs: float | None = None
    """Passes over the training rows; give this or steps."""

    global_batch_size: int = 16
    """Sequences per optimizer step, over all workers; the worker count does not change it."""

    micro_batch_size: int = 1
    """Sequences one worker computes at a time; larger is faster and takes more memory."""

    optimizer: Literal["adamw", "adamw_8bit", "adafactor", "muon"] = "adamw"
    """AdamW, also with state rounded to 8 bits; adafactor and muon need zero.stage: 0."""

    learning_rate: float = 2e-4
    """Highest learning rate, in AdamW's terms for every optimizer."""

    loraplus_ratio: float | None = None
    """LoRA+ (arXiv:2402.12354): the rate of the B matrices is this times as high; try 16."""

    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Learning rate after the warm-up: kept, or lowered to zero at the last step."""

    warmup_steps: int = 0
    """Steps over which the learning rate rises from zero."""

    weight_decay: float = 0.0
    """Decoupled weight decay (arXiv:1711.05101)."""

    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Decay rates of AdamW's two moments; muon uses them for what is no matrix of the adapter."""

    eps: float = 1e-8
    """Added to AdamW's denominator."""

    max_grad_norm: float = 1.0
    """Clip the gradient of a step to this L2 norm; 0 does not clip."""

    def problems(self) -> Iterator[Problem]:
        if (self.steps is None) == (self.epochs is None):
            both = "both are given" if self.steps is not None else "neither is given"
            yield Problem(
                path="train.steps",
                message=f"{both}",
                hint="Give either train.steps or train.epochs",
            )
        for name in ("steps", "epochs", "global_batch_size", "micro_batch_size"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                yield Problem(
                    path=f"train.{name}", value=value, message="is too small", allowed="> 0"
                )
        if self.micro_batch_size > 0 and self.global_batch_size % self.micro_batch_size:
            yield Problem(
                path="train.micro_batch_size",
                value=self.micro_batch_size,
                message=f"does not divide train.global_batch_size = {self.global_batch_size}",
                allowed=", ".join(str(n) for n in divisors(self.global_batch_size)),
            )
        yield from self._optimizer_problems()

    def _optimizer_problems(self) -> Iterator[Problem]:
        if self.loraplus_ratio is not None and self.loraplus_ratio <= 0:
            yield Problem(
                path="train.loraplus_ratio",
                value=self.loraplus_ratio,
                message="is too small",
                allowed="> 0, or null",
            )
        if self.optimizer == "adafactor":
            yield from self._unused_problems("betas", "eps")
        for name in ("learning_rate", "eps"):
            value = getattr(self, name)
            if value <= 0:
                yield Problem(
                    path=f"train.{name}", value=value, message="is too small", allowed="> 0"
                )
        for name in ("warmup_steps", "weight_decay", "max_grad_norm"):
            value = getattr(self, name)
            if value < 0:
                yield Problem(
                    path=f"train.{name}", value=value, message="is negative", allowed="≥ 0"
                )
        if len(self.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in self.betas):
            yield Problem(
                path="train.betas",
                value=list(self.betas),
                message="AdamW has two",
                allowed="two numbers, 0 ≤ value < 1",
            )
        if self.steps is not None and self.warmup_steps > self.steps:
            yield Problem(
                path="train.warmup_steps",
                value=self.warmup_steps,
                message=f"is more than train.steps = {self.steps}",
            )

    def _unused_problems(self, *names: str) -> Iterator[Problem]:
        """A value that was changed and would have no effect."""
        for name in names:
            value = getattr(self, name)
            if value != getattr(Train(), name):
                yield Problem(
                    path=f"train.{name}",
                    value=value,
                    message=f"train.optimizer = {self.optimizer} has none",
                    hint=f"Leave train.{name} out",
                )


def divisors(number: int) -> list[int]:
    """The divisors of a positive number, smallest first."""
    return [n for n in range(1, number + 1) if number % n == 0]
