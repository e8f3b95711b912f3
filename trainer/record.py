"""What rank 0 keeps of every step: a line of metrics.jsonl and one of the ledger."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.ledger import Entry, Ledger
from trainer.loop import StepResult
from trainer.metrics import StepLog
from trainer.order import Order
from trainer.split import Split

_NOT_KEPT = ("stop", "save")


class Record:
    """The files of one attempt, which goes on after step `after`."""

    def __init__(
        self, run_dir: Path, *, after: int, num_steps: int, order: Order, split: Split
    ) -> None:
        self._metrics = StepLog(run_dir / "metrics.jsonl", resume_after=after)
        self._ledger = Ledger(run_dir / "ledger", resume_after=after, num_rows=len(split))
        self._num_steps = num_steps
        self._order = order
        self._split = split
        self._seconds: deque[float] = deque(maxlen=20)

    def append(self, result: StepResult) -> dict[str, Any]:
        """Keep a step; what a person is told of it."""
        line = {name: value for name, value in asdict(result).items() if name not in _NOT_KEPT}
        if not line["sources"]:
            del line["sources"]
        line["time"] = datetime.now(UTC).isoformat(timespec="milliseconds")
        line["tokens_per_s"] = result.tokens / result.seconds
        rows = self._order.rows(result.step - 1)
        self._metrics.append(line)
        self._ledger.append(
            Entry(
                step=result.step,
                batch=self._order.batch(result.step - 1),
                rows=rows,
                samples=[self._split.samples(row) for row in rows],
            )
        )
        self._seconds.append(result.seconds)
        left = (self._num_steps - result.step) * sum(self._seconds) / len(self._seconds)
        return {**line, "steps": self._num_steps, "seconds_left": left}
