"""A step, and the memory, of several kinds of adapter: with shoal, and with PEFT alone."""

from __future__ import annotations

import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.commands import Trained, in_turn, read_lines, shoal, torchrun

_ROUNDS = 1
_STEPS = 10
_ADAPTERS = {
    "lora": ["adapter.kind=lora"],
    "dora": ["adapter.kind=lora", "adapter.dora=true"],
    "qlora": ["adapter.kind=lora", "base.quantization=nf4"],
    "ia3": ["adapter.kind=ia3", *(f"adapter.{key}=null" for key in ("r", "alpha", "last_layers"))],
    "prompt_tuning": [
        "adapter.kind=prompt_tuning",
        "data.packing=false",
        *(f"adapter.{key}=null" for key in ("r", "alpha", "last_layers", "targets")),
    ],
}
# What the recipe says of lora's targets is not what these are for.
_ADAPTERS["ia3"].append("adapter.targets=[k_proj,v_proj,down_proj]")


def measure(folder: Path) -> dict[str, Any]:
    """For each kind the ratios of step times and of peak memory, ours to theirs; one worker."""
    return {
        "steps": _STEPS,
        "rounds": _ROUNDS,
        **{name: _compare(folder, overrides) for name, overrides in _ADAPTERS.items()},
    }


def _compare(folder: Path, overrides: list[str]) -> dict[str, Any]:
    arguments = [*overrides, f"train.steps={_STEPS}", "checkpoint.prove=false"]
    pairs = in_turn(
        _ROUNDS,
        partial(shoal, folder, 1, *arguments),
        lambda ours: torchrun("plain_peft", ours),
    )
    ratios = [ours.step_s() / plain.step_s() for ours, plain in pairs]
    memory = [(_our_peak(ours), _their_peak(plain)) for ours, plain in pairs]
    return {
        "step_ratio": statistics.median(ratios),
        "step_ratios": ratios,
        "shoal_step_s": [ours.step_s() for ours, _ in pairs],
        "peft_step_s": [plain.step_s() for _, plain in pairs],
        "memory_ratio": statistics.median(ours / theirs for ours, theirs in memory),
        "shoal_peak_bytes": [ours for ours, _ in memory],
        "peft_peak_bytes": [theirs for _, theirs in memory],
        "last_losses": [(ours.losses[-1], plain.losses[-1]) for ours, plain in pairs],
    }


def _our_peak(run: Trained) -> int:
    events = read_lines(run.folder / "events.jsonl")
    ranks = next(event["ranks"] for event in events if event["event"] == "memory")
    return max(int(rank["host_bytes"]) for rank in ranks)


def _their_peak(run: Trained) -> int:
    peak: int = json.loads((run.folder / "plain_peft_peak.json").read_text(encoding="utf-8"))
    return peak
