"""A step of shoal against a step of a bare DeepSpeed loop, from the end of a step to the end of the
next: with Ray, the reading of shards, records, ledger and progress on our side, nothing on theirs.

Ray's own processes take about 8 % of one core whatever the model. With one worker a core of this
machine is free for them; with as many workers as cores they take it from the training.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.commands import in_turn, shoal, torchrun

_ROUNDS = 3
_STEPS = 40


def measure(folder: Path) -> dict[str, Any]:
    """Ratios of step times, ours to theirs: below 1 shoal is faster."""
    return {
        "steps": _STEPS,
        "rounds": _ROUNDS,
        "one_worker": _compare(folder, 1),
        "two_workers": _compare(folder, 2),
        "two_workers_against_all_logits": _compare(folder, 2, "all"),
    }


def _compare(folder: Path, workers: int, *arguments: str) -> dict[str, Any]:
    pairs = in_turn(
        _ROUNDS,
        partial(shoal, folder, workers, f"train.steps={_STEPS}"),
        lambda ours: torchrun("bare_loop", ours, *arguments),
    )
    ratios = [ours.step_s() / bare.step_s() for ours, bare in pairs]
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "shoal_step_s": [ours.step_s() for ours, _ in pairs],
        "bare_step_s": [bare.step_s() for _, bare in pairs],
        "largest_relative_loss_difference": max(
            abs(a - b) / b
            for ours, bare in pairs
            for a, b in zip(ours.losses, bare.losses, strict=True)
        ),
    }
