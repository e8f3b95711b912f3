"""Checkpoints from what was gathered to what others can see."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from adapters import checkpoint, checkpoint_folder
from adapters.attached import PeftAdapter
from adapters.checkpoint_folder import Origin, Position
from adapters.mirror import Mirror
from adapters.movement import check_moved
from recipes.resolved import digest
from trainer.claim import is_replaced
from trainer.engine import Engine
from trainer.job import Job
from trainer.proof import Proof
from trainer.reporter import Reporter


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Publishes the checkpoints of one attempt, from rank 0."""

    job: Job
    engine: Engine
    data_digest: str
    labels: tuple[str, ...]
    """Of a classification, in the order of their ids."""
    multi_label: bool
    mirror: Mirror
    reporter: Reporter
    is_new: bool
    """Whether the adapter began with its first values."""

    def publish(
        self,
        saved: checkpoint.TrainerState,
        adapter: PeftAdapter,
        position: Position,
        *,
        stall_s: float,
        proof: Proof | None,
    ) -> None:
        """In the saver's thread: write, read back, prove, publish, prune. Training stood still for
        `stall_s`. A run that another attempt drives by now publishes nothing."""
        begin = time.perf_counter()
        if self.is_new:
            check_moved(saved, self.engine.first_values)
        if self._is_replaced:
            return
        folder = checkpoint.save(
            self.job.run_dir / "checkpoints",
            adapter,
            saved,
            origin=Origin(
                base=self.job.base,
                recipe_digest=digest(self.job.recipe),
                data_digest=self.data_digest,
                dtype="bfloat16" if self.engine.bfloat16 else "float32",
                labels=self.labels,
                multi_label=self.multi_label,
            ),
            position=position,
            check=proof.check if proof is not None else lambda folder: None,
        )
        if self._is_replaced:
            return
        # First: a checkpoint that is there has the curve that leads to it.
        self.push_records()
        self.mirror.push_checkpoint(folder)
        self._prune(folder)
        self.reporter.event(
            "checkpoint",
            {
                "step": saved.step,
                "folder": str(folder),
                "bytes": checkpoint_folder.total_bytes(folder),
                "stall_s": stall_s,
                "write_s": time.perf_counter() - begin,
                **(proof.told() if proof is not None else {}),
            },
        )

    def push_records(self) -> None:
        """Bring what rank 0 wrote beside checkpoints to where else the run is kept."""
        if dist.get_rank() == 0 and not self._is_replaced:
            self.mirror.push("metrics.jsonl", "ledger", "evaluation")

    @property
    def _is_replaced(self) -> bool:
        return is_replaced(self.job.run_dir, self.job.token)

    def _prune(self, saved: Path) -> None:
        rule = self.job.recipe.checkpoint
        kept: dict[str, Any] = {
            "keep": rule.keep,
            "every": rule.keep_every_steps,
            "best": rule.keep_best,
            "by": rule.best_by,
        }
        checkpoint_folder.prune(saved, **kept)
        self.mirror.prune(saved, **kept)
