"""Supervised tokens per second, and from the command to the first step, against TRL's SFTTrainer
with PEFT: the same versions, base, LoRA, tokens and labels, two workers; packing on both and on
neither."""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.commands import in_turn, shoal, torchrun

_ROUNDS = 3
_WORKERS = 2
_STEPS = 20
# Both take rows in random order: what grouping by length saves is told in docs/data.md.
_UNPACKED = (f"train.steps={_STEPS}", "data.group_by_length=false")
_PACKED = (
    *_UNPACKED,
    "data.train=sample:movie_reviews/train_all.jsonl",
    "data.packing=true",
)


def measure(folder: Path) -> dict[str, Any]:
    """Ratios, ours to theirs: above 1 shoal learns from more tokens in the same time, and below 1
    its first step comes sooner."""
    # What is prepared once stays prepared: it is no part of either side.
    for overrides in (_UNPACKED, _PACKED):
        shoal(folder, _WORKERS, *overrides, "train.steps=1")
    return {
        "steps": _STEPS,
        "rounds": _ROUNDS,
        "neither_packs": _compare(folder, _UNPACKED, ()),
        "both_pack": _compare(folder, _PACKED, ("packing",)),
    }


def _compare(folder: Path, overrides: tuple[str, ...], arguments: tuple[str, ...]) -> Any:
    pairs = in_turn(
        _ROUNDS,
        partial(shoal, folder, _WORKERS, *overrides),
        lambda ours: torchrun("trl_sft", ours, *arguments),
    )
    ratios = [ours.supervised_per_s() / trl.supervised_per_s() for ours, trl in pairs]
    first = [ours.first_step_s() / trl.first_step_s() for ours, trl in pairs]
    return {
        "supervised_tokens_per_s_ratio": statistics.median(ratios),
        "ratios": ratios,
        "shoal_supervised_tokens_per_s": [ours.supervised_per_s() for ours, _ in pairs],
        "trl_supervised_tokens_per_s": [trl.supervised_per_s() for _, trl in pairs],
        "command_to_first_step_ratio": statistics.median(first),
        "shoal_command_to_first_step_s": [ours.first_step_s() for ours, _ in pairs],
        "trl_command_to_first_step_s": [trl.first_step_s() for _, trl in pairs],
    }
