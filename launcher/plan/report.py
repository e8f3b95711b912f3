"""A plan as lines of text for a person, at most 100 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from launcher.plan.length import Workers
from launcher.plan.machine import Machine
from launcher.plan.memory import Memory, terms
from launcher.plan.plan import Plan
from launcher.plan.verdict import Check, Verdict
from recipes import resolved
from recipes.load import DEFAULT, LoadedRecipe

_WIDTH = 100
_LABEL = 26
_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_MOST_COUNTS = 12


def report(loaded: LoadedRecipe, plan: Plan, machine: Machine, verdict: Verdict) -> Iterator[str]:
    """The whole plan."""
    yield from _recipe(loaded)
    yield ""
    yield from _length(plan)
    yield ""
    yield from _workers(plan)
    if plan.trained_parameters is not None:
        yield ""
        yield from _adapter(loaded.recipe.adapter.kind, plan)
    if plan.memory is not None:
        yield ""
        yield from _memory(plan, plan.memory)
    yield ""
    yield from _disk_and_network(plan)
    for why in plan.missing:
        yield from _wrapped("Not planned", why)
    yield ""
    yield from _verdict(verdict, machine, is_whole=not plan.missing)


def bytes_text(amount: int) -> str:
    """`1.43 GiB`, `260 MiB`, `12.1 KiB`: three digits."""
    for unit, size in _UNITS:
        if amount >= size:
            value = amount / size
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:,.{digits}f} {unit}"
    return f"{amount} B"


def _recipe(loaded: LoadedRecipe) -> Iterator[str]:
    """The values that somebody chose, with who it was."""
    yield f"Recipe {loaded.file}"
    values = resolved.values(loaded.recipe)
    chosen = [path for path in values if loaded.origins[path] != DEFAULT]
    for path in chosen:
        origin = f"  # {loaded.origins[path]}"
        text = f"  {path}: {resolved.scalar(values[path])}"
        room = _WIDTH - len(origin)
        yield (text if len(text) <= room else text[: room - 1] + "…") + origin
    yield f"  and {len(values) - len(chosen)} defaults (docs/recipe.md)"


def _length(plan: Plan) -> Iterator[str]:
    length = plan.length
    if length is None:
        yield "Length: not known, see below"
        return
    about = "about " if plan.is_estimated else ""
    if plan.is_estimated:
        yield "Length, estimated from the files; exact once `shoal prepare` has run"
    else:
        yield "Length, from the prepared data"
    yield _line("steps", f"{length.steps:,}")
    yield _line("epochs", f"{about}{length.epochs:.4g}, of {about}{length.rows:,} sequences")
    yield _line("samples", f"{about}{length.samples:,}")
    yield _line("tokens", f"{about}{length.tokens:,}, padding not counted")


def _workers(plan: Plan) -> Iterator[str]:
    most = max(count.workers for count in plan.worker_counts)
    yield f"Workers: any number from 1 to {most}; these are the fewest for their time"
    yield f"  {'workers':>8} {'micro-batches each':>20} {'computed for nothing':>22}"
    for count in _shown(plan):
        here = "  ← this plan" if count == plan.workers else ""
        row = f"  {count.workers:>8} {count.accumulation:>20} {count.idle or '–':>22}"
        yield row + here


def _shown(plan: Plan) -> Sequence[Workers]:
    counts = [*plan.worker_counts]
    if plan.workers not in counts:
        counts.append(plan.workers)
    counts.sort(key=lambda count: count.workers)
    if len(counts) <= _MOST_COUNTS:
        return counts
    even = [count for count in counts if not count.idle or count == plan.workers]
    return even[:_MOST_COUNTS]


def _adapter(kind: str, plan: Plan) -> Iterator[str]:
    """What is trained, and around which modules."""
    trained, base = plan.trained_parameters or 0, plan.base_parameters or 1
    yield f"Adapter: {kind}, {trained:,} numbers trained, {trained / base:.2%} of the base"
    if plan.adapted:
        modules = ", ".join(f"{count} {name}" for name, count in sorted(plan.adapted.items()))
        yield from textwrap.wrap(
            f"{sum(plan.adapted.values())} modules: {modules}",
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
        )


def _memory(plan: Plan, memory: Memory) -> Iterator[str]:
    dtype = "float32" if plan.element_bytes == 4 else "bfloat16"
    where = "of its GPU" if memory.on_gpu else "of host memory"
    batch = plan.batch
    yield (
        f"Memory of a worker, {where}: {plan.base_parameters:,} parameters in {dtype}, "
        f"{plan.trained_parameters:,} trained"
    )
    for name, amount in terms(memory):
        note = f" ({batch.rows} × {batch.tokens_per_row} tokens)" if name == "activations" else ""
        note = f" (at {batch.columns} positions)" if name == "logits" and amount else note
        yield _line(name, f"{bytes_text(amount):>10}{note}")
    if memory.evaluating > memory.activations + memory.logits:
        yield _line("or, while measuring", f"{bytes_text(memory.evaluating):>10}")
    yield _line("together", f"{bytes_text(memory.training):>10}")
    yield _line("host, loading the base", f"{bytes_text(memory.loading):>10}, {_mapped(memory)}")
    if memory.offloaded and memory.on_gpu:
        yield _line("host, offloaded", f"{bytes_text(memory.offloaded):>10}")


def _mapped(memory: Memory) -> str:
    return f"of it {bytes_text(memory.mapped)} files that its node's workers share"


def _disk_and_network(plan: Plan) -> Iterator[str]:
    disk = plan.disk
    if disk is not None:
        free = "" if disk.room_bytes is None else f", {bytes_text(disk.room_bytes)} free"
        yield _line(
            "a checkpoint",
            f"{bytes_text(disk.checkpoint_bytes)}; {disk.kept} kept and one being written "
            f"{bytes_text(disk.needed_bytes)}{free}",
            indent=0,
        )
    if plan.traffic is not None:
        traffic = plan.traffic
        yield _line(
            "network, worker and step",
            f"{bytes_text(traffic.gradients_bytes)} of gradients, "
            f"{bytes_text(traffic.parameters_bytes)} of parameters",
            indent=0,
        )


def _verdict(verdict: Verdict, machine: Machine, *, is_whole: bool) -> Iterator[str]:
    yield f"Verdict: {verdict.word}" + ("" if is_whole else ", as far as it is planned")
    for check in verdict.checks:
        yield _line(check.what, _against(check, machine))
    if verdict.change:
        yield f"  It would fit with: {' '.join(verdict.change)}"
    elif any(check.word == "does not fit" and check.what != "disk" for check in verdict.checks):
        yield "  No smaller batch, higher stage or shorter sequence fits; it takes more memory"
    if any(check.word == "does not fit" and check.what == "disk" for check in verdict.checks):
        yield "  Free some of the disk, or lower checkpoint.keep"


def _against(check: Check, machine: Machine) -> str:
    needed = f"needs {bytes_text(check.needed_bytes)}"
    if check.there_bytes is None:
        return f"{needed}; what there is is not known here"
    where = "free here" if check.what == "disk" else f"on {machine.where}"
    return f"{needed} of {bytes_text(check.there_bytes)} {where}: {check.word}"


def _line(label: str, text: str, indent: int = 2) -> str:
    return f"{' ' * indent}{label:<{_LABEL - indent}} {text}"


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(f"{label}: {text}", _WIDTH, subsequent_indent="  ")
