"""What it costs to be able to go on, and how long it takes.

- stall: how long training stands still for a checkpoint, against a step, by ZeRO stage; the rest is
  done in the background.
- overhead: the time that a step's ledger and metrics take, and the processor time of heartbeats,
  against a step.
- recovery: from a SIGKILL of one of two workers to the message, and to the end of the next step.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.commands import SHOAL, Trained, prepared_of, read_lines, shoal
from recipes.load import load

_ROUNDS = 3
_STEPS = 40


def measure(folder: Path) -> dict[str, Any]:
    """On the quickstart's model and data, two workers."""
    by_stage = {
        stage: shoal(
            folder, 2, f"train.steps={_STEPS}", "checkpoint.every_steps=4", f"zero.stage={stage}"
        )
        for stage in range(4)
    }
    return {
        "checkpoint": {f"stage_{stage}": _checkpoint(run) for stage, run in by_stage.items()},
        "overhead": _overhead(by_stage[0]),
        "recovery": [_recovery(folder, number) for number in range(_ROUNDS)],
    }


def _checkpoint(trained: Trained) -> dict[str, Any]:
    saved = [
        event
        for event in read_lines(trained.folder / "events.jsonl")
        if event["event"] == "checkpoint"
    ]
    stall_s = statistics.median(event["stall_s"] for event in saved)
    return {
        "step_s": trained.step_s(),
        "checkpoints": len(saved),
        "bytes": saved[-1]["bytes"],
        "stall_s": stall_s,
        "stall_to_step": stall_s / trained.step_s(),
        "longest_stall_to_step": max(event["stall_s"] for event in saved) / trained.step_s(),
        "background_s": statistics.median(event["write_s"] for event in saved),
    }


def _overhead(trained: Trained) -> dict[str, Any]:
    record_s, beat_cpu_s = _record_s(trained), _beat_cpu_s()
    return {
        "record_s": record_s,
        "record_to_step": record_s / trained.step_s(),
        "heartbeat_cpu_s": beat_cpu_s,
        # One a second on each rank, and as much in the actor that hears it.
        "heartbeats_to_core": 2 * beat_cpu_s,
    }


def _record_s(trained: Trained) -> float:
    """Mean time to keep one step."""
    from trainer.loop import StepResult
    from trainer.order import order_of
    from trainer.record import Record
    from trainer.split import open_split

    recipe = load(trained.folder / "recipe.yaml").recipe
    split = open_split(prepared_of(trained.folder), "train")
    order = order_of(recipe, split.tokens)
    with tempfile.TemporaryDirectory(dir=trained.folder) as place:
        record = Record(Path(place), after=0, num_steps=500, order=order, split=split)
        begin = time.perf_counter()
        for step in range(1, 501):
            record.append(
                StepResult(
                    step=step,
                    loss=1.0,
                    grad_norm=1.0,
                    learning_rate=1e-3,
                    supervised=64,
                    tokens=1024,
                    seconds=1.0,
                    data_wait_s=0.0,
                    stop=False,
                    save=False,
                    sources={},
                )
            )
        return (time.perf_counter() - begin) / 500


def _beat_cpu_s() -> float:
    """Mean processor time of the caller for one heartbeat."""
    import ray

    from cluster.ray_cluster import connected
    from launcher.driving.faults import Whereabouts
    from launcher.driving.mailbox import Mailbox
    from recipes.cluster import Cluster
    from trainer.pulse import Pulse

    with connected(Cluster(), num_cpus=1):
        mailbox = Mailbox.remote()  # type: ignore[attr-defined]
        where = Whereabouts(node="a" * 56, host="host", pid=1)
        ray.get(mailbox.beat.remote(0, where, Pulse()))
        begin = time.process_time()
        ray.get([mailbox.beat.remote(0, where, Pulse(marks=n)) for n in range(500)])
        return (time.process_time() - begin) / 500


def _recovery(folder: Path, number: int) -> dict[str, float]:
    """Kill a worker with -9 in the middle of a run, and see when training goes on."""
    name = f"recovery{number}"
    run_dir = folder / name
    command = [
        *(SHOAL, "run", "quickstart", f"name={name}", f"storage.path={folder}"),
        *("evaluate.before=false", "evaluate.after=false", "train.steps=20"),
        "checkpoint.every_steps=4",
    ]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        metrics = run_dir / "metrics.jsonl"
        while not metrics.is_file() or metrics.read_bytes().count(b"\n") < 10:
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in children if "RayTrainWorker" in "".join(child.cmdline())]
        killed = time.time()
        os.kill(workers[-1].pid, signal.SIGKILL)
        process.wait()
    finally:
        process.kill()
    events = read_lines(run_dir / "events.jsonl")
    fault = next(event for event in events if event["event"] == "fault")
    after = [line for line in read_lines(metrics) if _time(line) > _time(fault)]
    return {
        "noticed_s": _time(fault) - killed,
        "next_step_s": _time(after[0]) - killed,
        "went_on_after_step": after[0]["step"] - 1,
    }


def _time(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()
