"""`shoal plan`: a recipe looked at and judged, or a run compared with its plan."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster.inside import is_submitted
from launcher.plan.known import look
from launcher.plan.machine import Machine, machine_of, parse_size
from launcher.plan.plan import Plan, as_dict, make_plan
from launcher.plan.report import report
from launcher.plan.verdict import Verdict, judge
from recipes import resolved, shipped
from recipes.address import is_address
from recipes.load import LoadedRecipe, load


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A plan, what it was judged against, and the verdict."""

    plan: Plan
    machine: Machine
    verdict: Verdict


def lines(
    reference: str,
    overrides: Sequence[str],
    *,
    as_json: bool,
    node_memory: str | None = None,
    gpu_memory: str | None = None,
    gpus_per_node: int | None = None,
) -> Iterator[str]:
    """What `shoal plan` prints. With overrides a run is planned anew, as its recipe."""
    run_dir = None if overrides else _run_of(reference)
    if run_dir is not None:
        from launcher.plan import comparison, record

        plan = record.read(run_dir)
        yield from [json.dumps(plan, indent=2)] if as_json else comparison.show(run_dir, plan)
        return
    loaded = load(reference, overrides)
    machine = machine_of(
        loaded.recipe,
        memory_bytes=parse_size(node_memory, "--node-memory"),
        gpu_memory_bytes=parse_size(gpu_memory, "--gpu-memory"),
        gpus_per_node=gpus_per_node,
    )
    judged = plan_of(loaded, machine)
    if as_json:
        yield json.dumps(to_json(loaded, judged), ensure_ascii=False, indent=2)
        return
    yield from report(loaded, judged.plan, judged.machine, judged.verdict)
    if is_submitted(loaded.recipe):
        from launcher.scheduled.submit import dry_run

        yield from [
            "",
            "What `shoal submit` would hand in:",
            "",
            *dry_run(loaded).split("\n"),
        ]


def _run_of(reference: str) -> Path | None:
    """The run that is meant: an address, a folder, or a name in ./runs that is no recipe's."""
    folder, is_there = Path(reference).expanduser(), is_address(reference)
    if not is_there and (folder.is_file() or reference in shipped.names()):
        return None
    from launcher.records import runs

    is_there = is_there or folder.is_dir() or (runs.usual_storage() / reference).is_dir()
    return runs.find(reference) if is_there else None


def plan_of(loaded: LoadedRecipe, machine: Machine, *, workers: int | None = None) -> Judged:
    """The plan of a recipe on machines like this, with its verdict."""
    known = look(loaded.recipe, machine)
    plan = make_plan(loaded.recipe, known, workers=workers)
    return Judged(plan=plan, machine=machine, verdict=judge(loaded.recipe, known, plan))


def to_json(loaded: LoadedRecipe, judged: Judged) -> dict[str, Any]:
    """All of it, the recipe with the origin of every value included."""
    values = resolved.values(loaded.recipe)
    return {
        "recipe": {
            path: {"value": value, "origin": loaded.origins[path]} for path, value in values.items()
        },
        "plan": as_dict(judged.plan),
        "machine": dataclasses.asdict(judged.machine),
        "verdict": {
            "word": judged.verdict.word,
            "checks": [
                {**dataclasses.asdict(check), "word": check.word} for check in judged.verdict.checks
            ],
            "change": list(judged.verdict.change),
        },
    }
