"""Bytes of a checkpoint against the bytes of what is trained: the adapter itself, the float32
master and two moments are four times as much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open

from benchmarks.commands import shoal


def measure(folder: Path) -> dict[str, Any]:
    """Of the quickstart's adapter, and of a larger one."""
    return {
        "quickstart": _measure(shoal(folder, 1, "train.steps=1").folder),
        "r16_all_linear": _measure(
            shoal(
                folder,
                1,
                "train.steps=1",
                "adapter.r=16",
                "adapter.targets=all-linear",
                "adapter.last_layers=null",
            ).folder
        ),
    }


def _measure(run_dir: Path) -> dict[str, Any]:
    checkpoint = run_dir / "checkpoints" / "step_000001"
    with safe_open(checkpoint / "adapter" / "adapter_model.safetensors", framework="numpy") as file:
        numbers = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118
    total = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
    return {
        "trained_parameters": numbers,
        "trained_bytes": 4 * numbers,
        "checkpoint_bytes": total,
        "ratio_to_four_times_trained": total / (16 * numbers),
    }
