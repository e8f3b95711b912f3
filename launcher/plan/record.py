"""A run's plan.json: what was predicted when it began, and what was measured when it ended."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from launcher.plan.command import plan_of, to_json
from launcher.plan.machine import machine_of
from launcher.records import runs
from recipes.errors import CheckpointError, DataError, ShoalError
from recipes.files import write_whole
from recipes.load import LoadedRecipe
from trainer.ledger import read_ledger
from trainer.metrics import read_steps

PLAN = "plan.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a run took. None is what it did not get to."""

    workers: int | None
    steps: int
    samples: int
    tokens: int
    step_s: float | None
    """Median."""
    data_wait: float | None
    """Share of the steps' time in which ranks waited for their rows."""
    checkpoint_bytes: int | None
    host_bytes: Sequence[int]
    """Most resident memory of each rank, over all attempts that came to an end."""
    device_bytes: Sequence[int]
    """Most of its GPU that each rank's tensors took; 0 without one."""


def begin(run_dir: Path, loaded: LoadedRecipe, *, gpu: bool) -> None:
    """Write down what is predicted, or note why nothing could be.

    A plan is no reason for a run to fail, so this is a border: models differ in ways that no error
    of shoal's foresees.
    """
    try:
        machine = replace(machine_of(loaded.recipe), gpu=gpu)
        predicted = to_json(loaded, plan_of(loaded, machine))
        del predicted["recipe"]  # beside it, in recipe.yaml
        write_whole(run_dir / PLAN, json.dumps({"predicted": predicted}, indent=2) + "\n")
    except Exception as error:
        runs.append_event(run_dir, "not_planned", {"why": f"{type(error).__name__}: {error}"})


def end(run_dir: Path) -> None:
    """Add what was measured up to now."""
    with suppress(ShoalError):
        plan = read(run_dir)
        plan["measured"] = as_dict(measure(run_dir))
        write_whole(run_dir / PLAN, json.dumps(plan, indent=2) + "\n")


def read(run_dir: Path) -> dict[str, Any]:
    """A run's plan. Raises `CheckpointError` when it has none."""
    file = run_dir / PLAN
    try:
        plan: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{file}: this run has no plan that can be read: {error}. "
            f"Its recipe can be planned now: shoal plan {run_dir}/recipe.yaml"
        ) from error
    return plan


def measure(run_dir: Path) -> Measured:
    """From what lies in a run's folder: its curve, its ledger and its events."""
    steps = read_steps(run_dir / "metrics.jsonl")
    events = runs.read_events(run_dir)
    attempts = [event for event in events if event["event"] == "attempt"]
    saved = [event for event in events if event["event"] == "checkpoint"]
    peaks = [event["ranks"] for event in events if event["event"] == "memory"]
    return Measured(
        workers=attempts[-1]["workers"] if attempts else None,
        steps=len(steps),
        samples=_samples(run_dir, len(steps)),
        tokens=sum(step["tokens"] for step in steps),
        step_s=statistics.median(step["seconds"] for step in steps) if steps else None,
        data_wait=_data_wait(steps),
        checkpoint_bytes=saved[-1]["bytes"] if saved else None,
        host_bytes=_most(peaks, "host_bytes"),
        device_bytes=_most(peaks, "device_bytes"),
    )


def as_dict(measured: Measured) -> dict[str, Any]:
    """As JSON takes it."""
    return {
        "workers": measured.workers,
        "steps": measured.steps,
        "samples": measured.samples,
        "tokens": measured.tokens,
        "step_s": measured.step_s,
        "data_wait": measured.data_wait,
        "checkpoint_bytes": measured.checkpoint_bytes,
        "host_bytes": list(measured.host_bytes),
        "device_bytes": list(measured.device_bytes),
    }


def _data_wait(steps: Sequence[Mapping[str, Any]]) -> float | None:
    # Steps that an earlier shoal took do not tell.
    told = [step for step in steps if "data_wait_s" in step]
    seconds = sum(step["seconds"] for step in told)
    return sum(step["data_wait_s"] for step in told) / seconds if seconds else None


def _samples(run_dir: Path, steps: int) -> int:
    with suppress(DataError):
        entries = read_ledger(run_dir / "ledger").entries
        return sum(len(ids) for entry in islice(entries, steps) for ids in entry.samples)
    return 0


def _most(attempts: Sequence[Sequence[Mapping[str, Any]]], name: str) -> list[int]:
    """The most of each rank; attempts may have had different numbers of them."""
    ranks = max((len(attempt) for attempt in attempts), default=0)
    return [
        max(attempt[rank][name] for attempt in attempts if rank < len(attempt))
        for rank in range(ranks)
    ]
