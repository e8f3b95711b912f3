"""Whether a run's first checkpoint, opened again, answers as the model in training did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapters.proof import Question, ask, prove
from trainer.engine import Engine


@dataclass(slots=True)
class Proof:
    """A question, the answer in training, and what came of asking again."""

    question: Question
    logits: torch.Tensor
    """float32 [tokens, vocabulary] with those of virtual tokens, or [labels]."""
    difference: float | None = None

    @classmethod
    @torch.no_grad()
    def of(cls, engine: Engine, question: Question) -> Proof:
        """Ask the model in training. Collective."""
        engine.model.eval()
        with engine.precision():
            logits = ask(engine.deepspeed, question.ids, engine.device, question.task)
        return cls(question, logits)

    def check(self, adapter: Path) -> None:
        """Ask the adapter in a folder. Raises `CheckpointError` when it answers otherwise."""
        self.difference = prove(adapter, self.question, self.logits)

    def told(self) -> dict[str, Any]:
        """For the run's events: the difference, or None when there was no memory to ask again."""
        return {"proven_within": self.difference}
