"""What was predicted of a run beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.plan.report import bytes_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One figure, predicted and measured, in the same unit. None is what is not known."""

    what: str
    predicted: float | None
    measured: float | None
    is_bytes: bool = False

    @property
    def off(self) -> float | None:
        """Share by which the prediction is above what was measured."""
        if self.predicted is None or not self.measured:
            return None
        return self.predicted / self.measured - 1


def compare(plan: Mapping[str, Any]) -> list[Pair]:
    """The figures that a run both predicts and measures."""
    predicted, measured = plan["predicted"]["plan"], plan.get("measured") or {}
    length = predicted["length"] or {}
    memory = predicted["memory"] or {}
    disk = predicted["disk"] or {}
    pairs = [
        Pair(what=name, predicted=length.get(name), measured=measured.get(name))
        for name in ("steps", "samples", "tokens")
    ]
    host = max(measured.get("host_bytes") or [0]) or None
    device = max(measured.get("device_bytes") or [0]) or None
    pairs.append(_bytes("host memory, worker", memory.get("host_bytes"), host))
    if memory.get("on_gpu"):
        # Torch counts tensors; the context is not among them.
        tensors = memory["device_bytes"] - memory["libraries_bytes"]
        pairs.append(_bytes("GPU memory, tensors", tensors, device))
    pairs.append(
        _bytes("a checkpoint", disk.get("checkpoint_bytes"), measured.get("checkpoint_bytes"))
    )
    return pairs


def show(run: Path, plan: Mapping[str, Any]) -> Iterator[str]:
    """The comparison as lines of text."""
    measured = plan.get("measured")
    planned = plan["predicted"]["plan"]["workers"]["workers"]
    took = (measured or {}).get("workers")
    workers = f"{planned} workers" if took in (None, planned) else f"{planned} workers, took {took}"
    yield f"Run {run}, planned for {workers}"
    if measured is None:
        yield "Nothing was measured yet: it has not come to an end"
    yield f"  {'':<22} {'predicted':>14} {'measured':>14} {'off by':>9}"
    for pair in compare(plan):
        off = "–" if pair.off is None else "exact" if pair.off == 0 else f"{pair.off:+.1%}"
        predicted, found = _text(pair, pair.predicted), _text(pair, pair.measured)
        yield f"  {pair.what:<22} {predicted:>14} {found:>14} {off:>9}"
    if measured is not None and measured.get("step_s") is not None:
        yield f"  {'a step, median':<22} {'–':>14} {measured['step_s']:>12.3f} s {'–':>9}"
    if measured is not None and measured.get("data_wait") is not None:
        yield f"  {'waiting for rows':<22} {'–':>14} {measured['data_wait']:>14.2%} {'–':>9}"


def _text(pair: Pair, value: float | None) -> str:
    if value is None:
        return "–"
    return bytes_text(int(value)) if pair.is_bytes else f"{value:,}"


def _bytes(what: str, predicted: int | None, measured: int | None) -> Pair:
    return Pair(what=what, predicted=predicted, measured=measured, is_bytes=True)
