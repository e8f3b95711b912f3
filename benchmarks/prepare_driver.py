"""What the driver of preparing takes for each unit, which bounds how many nodes it can feed.

`python -m benchmarks.prepare_driver RESULT` runs tasks that do nothing, and holds the reports of
30,000 units, about a terabyte at the default size of a unit.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.prepare_on import ray_of
from launcher.prepare.stages.context import Context
from launcher.prepare.stages.stage import run_on_ray

_TASKS = 1000
_UNITS = 30_000


@dataclass(frozen=True, slots=True)
class Nothing:
    """A unit without anything to do."""

    number: int


def main(result: Path) -> None:
    """Write the figures as JSON."""
    figures: dict[str, Any] = {"reports": reports(), **tasks()}
    result.write_text(json.dumps(figures), encoding="utf-8")


def tasks() -> dict[str, Any]:
    """Seconds of the driver for a task of one stage."""
    context = Context(recipe=None, work=Path())  # type: ignore[arg-type]
    with ray_of(1, os.cpu_count() or 1):
        for count in (10, _TASKS):  # the first starts the workers
            items = [Nothing(number) for number in range(count)]
            begin, begin_cpu = time.perf_counter(), time.process_time()
            run_on_ray(_answer, items, context, lambda done, total: None)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    return {
        "tasks": _TASKS,
        "tasks_per_s": _TASKS / seconds,
        "driver_cpu_s_per_task": cpu / _TASKS,
    }


def _answer(item: Nothing, context: Context) -> Mapping[str, Any]:
    return _report(item.number)


def _report(number: int) -> dict[str, Any]:
    """As long as one of the first stage."""
    names = ("arrow", "keys", "rejected.jsonl")
    return {
        "unit": number,
        "rows": 130_000,
        "lines": 130_000,
        "samples": 120_000,
        "text_bytes": 2**25,
        "labels": [],
        "has_several": False,
        "only_prepared": [],
        "failed": {"not JSON": 1, "not UTF-8": 2},
        "dropped": {"too short": 3, "too long": 4, "other language": 5},
        "changed": dict.fromkeys(("normalize_unicode", "strip_html", "collapse_whitespace"), 9),
        "examples": {"not JSON": [f"/data/part-{number:05d}.jsonl, row 17: Expecting value"] * 3},
        "files": {
            f"work/clean/{number:05d}.{name}": {"bytes": number, "sha256": f"{number:064x}"}
            for name in names
        },
    }


def reports() -> dict[str, Any]:
    """Memory of the driver for the reports of the stages, which it holds to the end."""
    before = _resident()
    held = [json.loads(json.dumps(_report(number))) for number in range(_UNITS)]
    return {"units": len(held), "bytes_per_report": (_resident() - before) / len(held)}


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    # By this name, and not as __main__, tasks find what they are given.
    from benchmarks import prepare_driver

    prepare_driver.main(Path(sys.argv[1]))
