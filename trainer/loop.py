"""The training loop: micro-batches in the global order, then one optimizer step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from recipes.recipe import Recipe
from trainer.ahead import Ahead, Reader
from trainer.engine import Engine
from trainer.loss import means_by_name, sums_by_source, training_loss
from trainer.order import Order
from trainer.pulse import Pulse
from trainer.schedule import learning_rate
from trainer.split import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One step as all ranks see it."""

    step: int  # counted from 1
    loss: float  # mean over the supervised tokens of the global batch
    grad_norm: float
    learning_rate: float
    supervised: int  # tokens, or labels for classification
    tokens: int  # all tokens of the global batch, padding not counted
    seconds: float
    data_wait_s: float  # of `seconds`, in which a rank waited for its rows; mean of the ranks
    stop: bool  # rank 0 was asked to stop
    save: bool  # rank 0 wishes a checkpoint
    sources: Mapping[str, float]
    """Of the sources that the step had tokens of, the loss by name; empty where there is one to
    train on, or a fused loss, which knows the sum of a micro-batch and nothing else."""


@dataclass(slots=True, kw_only=True)
class Loop:
    """Steps of one rank. Every rank iterates over the same steps."""

    recipe: Recipe
    engine: Engine
    split: Split
    order: Order
    num_steps: int
    pad_token_id: int
    mixture: Sequence[str]
    """Names of the sources by their numbers, if losses are to be told by them; else empty."""
    pulse: Pulse
    stop_requested: Callable[[], bool]
    """Asked by rank 0 after every step; all ranks learn the answer in the step's result."""
    save_due: Callable[[], bool]
    """Likewise."""

    def steps(self, first: int) -> Iterator[StepResult]:
        """Train from step `first` (counted from 0) to the end, yielding after each step."""
        reader = Reader(
            split=self.split,
            order=self.order,
            rank=dist.get_rank(),
            num_workers=dist.get_world_size(),
            pad_token_id=self.pad_token_id,
        )
        with Ahead(reader.turns(first, self.num_steps)) as ahead:
            for step in range(first, self.num_steps):
                self.engine.model.train()
                yield self._step(step, ahead)

    def _step(self, step: int, ahead: Ahead) -> StepResult:
        start = time.perf_counter()
        rows = self.order.rows(step)
        supervised = int(self.split.supervised[rows].sum())
        # DeepSpeed divides by the accumulation and averages over ranks; we want sum / number.
        scale = dist.get_world_size() * self.engine.accumulation / max(1, supervised)
        # Added up where they are: asking for a number would wait for the GPU.
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.engine.device)
        by_source = torch.zeros(
            (2, len(self.mixture)), dtype=torch.float64, device=self.engine.device
        )
        tokens, waited_s = 0, 0.0
        rate = learning_rate(self.recipe.train, step, self.num_steps)
        norm = math.nan
        for turn in range(self.engine.accumulation):
            self.pulse.mark("reading", step + 1)
            asked = time.perf_counter()
            read = ahead.next()
            waited_s += time.perf_counter() - asked
            weighs = read.number < self.order.num_micro_batches
            batch = read.batch.to(self.engine.device)
            self._seed_dropout(step, read.number)
            self.pulse.mark("forward", step + 1)
            with self.engine.precision():
                loss, losses = training_loss(
                    self.engine.deepspeed,
                    batch,
                    task=self.recipe.task,
                    kernels=self.engine.kernels,
                    shift=self.engine.shift,
                )
            loss = loss * (1.0 if weighs else 0.0)
            self.pulse.mark("backward", step + 1)
            if turn < self.engine.accumulation - 1:
                self.engine.backward(loss * scale)
            else:
                norm = self.engine.backward_and_step(loss * scale, rate)
            loss_sum += loss.detach()
            if losses is not None and weighs and self.mixture:
                by_source += sums_by_source(losses, batch, len(self.mixture))
            tokens += batch.num_tokens if weighs else 0
        self.pulse.mark("adding up", step + 1)
        total = self._add_up(loss_sum, tokens, waited_s, by_source)
        return StepResult(
            step=step + 1,
            loss=float(total[0]) / max(1, supervised),
            grad_norm=norm,
            learning_rate=rate,
            supervised=supervised,
            tokens=int(total[1]),
            seconds=time.perf_counter() - start,
            data_wait_s=float(total[2]) / dist.get_world_size(),
            stop=bool(total[3]),
            save=bool(total[4]),
            sources=self._by_source(total[5:]),
        )

    def _seed_dropout(self, step: int, number: int) -> None:
        # Dropout belongs to the micro-batch, not to the rank that happens to compute it.
        mixed = (self.recipe.seed * 1_000_003 + step) * 1_000_003 + number
        torch.manual_seed(mixed % 2**63)

    def _by_source(self, sums: torch.Tensor) -> dict[str, float]:
        losses, counts = sums.view(2, len(self.mixture)).tolist()
        return means_by_name(self.mixture, losses, counts)

    def _add_up(
        self, loss_sum: torch.Tensor, tokens: int, waited_s: float, by_source: torch.Tensor
    ) -> torch.Tensor:
        """Over all ranks: the loss, the tokens, the waiting, what rank 0 wishes, and losses by
        source."""
        first = dist.get_rank() == 0
        wishes = [first and self.stop_requested(), first and self.save_due()]
        numbers = torch.tensor([tokens, waited_s, *wishes], dtype=torch.float64).to(
            self.engine.device
        )
        total = torch.cat([loss_sum[None], numbers, by_source.flatten()])
        dist.all_reduce(total)
        return total.cpu()
