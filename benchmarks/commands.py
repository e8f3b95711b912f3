"""Running the things that are compared, each as a command of its own, and reading what they did."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from cluster.process import run
from recipes.load import load

_TIMEOUT_S = 1800
_WARM_UP_STEPS = 5
SHOAL = str(Path(sys.executable).parent / "shoal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One training command: when it was given and when each of its steps ended (s since 1970)."""

    begin: float
    step_ends: Sequence[float]
    supervised: Sequence[int]  # supervised tokens of each step
    losses: Sequence[float]
    folder: Path

    def step_s(self) -> float:
        """Median time of a step, from the end of the one before, the first few left out."""
        ends = self.step_ends[_WARM_UP_STEPS - 1 :]
        return statistics.median(b - a for a, b in pairwise(ends))

    def supervised_per_s(self) -> float:
        """Supervised tokens per second after the first few steps."""
        tokens = sum(self.supervised[_WARM_UP_STEPS:])
        return tokens / (self.step_ends[-1] - self.step_ends[_WARM_UP_STEPS - 1])

    def first_step_s(self) -> float:
        """From the command to the end of its first step."""
        return self.step_ends[0] - self.begin


def shoal(folder: Path, workers: int, *overrides: str) -> Trained:
    """`shoal run quickstart` without its evaluations, as a run below `folder`."""
    begin = time.time()
    run(
        [
            SHOAL,
            "run",
            "quickstart",
            "evaluate.before=false",
            "evaluate.after=false",
            f"cluster.workers={workers}",
            f"storage.path={folder}",
            *overrides,
        ],
        timeout_s=_TIMEOUT_S,
        cwd=folder,
    )
    run_dir = max(folder.glob("quickstart*"), key=lambda path: path.stat().st_mtime)
    lines = read_lines(run_dir / "metrics.jsonl")
    return Trained(
        begin=begin,
        step_ends=[datetime.fromisoformat(line["time"]).timestamp() for line in lines],
        supervised=[line["supervised"] for line in lines],
        losses=[line["loss"] for line in lines],
        folder=run_dir,
    )


def prepared_of(run_dir: Path) -> Path:
    """The prepared data that a run of shoal trained on."""
    events = read_lines(run_dir / "events.jsonl")
    return Path(next(event["folder"] for event in events if event["event"] == "prepared"))


def torchrun(module: str, ours: Trained, *arguments: str) -> Trained:
    """A module of this package on as many processes as the shoal run had workers; it is given the
    folder of that run, whose recipe and data it takes, and a file to write its steps into."""
    result = ours.folder / f"{module}.json"
    workers = load(ours.folder / "recipe.yaml").recipe.cluster.most_workers
    begin = time.time()
    run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(workers), "-m", f"benchmarks.{module}"),
            *(str(ours.folder), str(result), *arguments),
        ],
        timeout_s=_TIMEOUT_S,
        # As Ray Train's workers have it: one thread for each of them.
        env={"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parent.parent,
    )
    found = json.loads(result.read_text(encoding="utf-8"))
    return Trained(begin=begin, folder=ours.folder, **found)


def in_turn(
    rounds: int, ours: Callable[[], Trained], theirs: Callable[[Trained], Trained]
) -> list[tuple[Trained, Trained]]:
    """Both, one after the other, so that a machine that slows down slows both."""
    pairs = []
    for number in range(rounds):
        mine = ours()
        pairs.append((mine, theirs(mine)))
        print(f"  round {number + 1} of {rounds} done", file=sys.stderr, flush=True)
    return pairs


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The rows of a file with a JSON object a line."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write_steps(file: str, ends: list[float], supervised: list[int], losses: list[float]) -> None:
    """What rank 0 of a compared command leaves for `torchrun` to read."""
    if os.environ["RANK"] == "0":
        steps = {"step_ends": ends, "supervised": supervised, "losses": losses}
        Path(file).write_text(json.dumps(steps), encoding="utf-8")
