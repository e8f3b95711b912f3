"""The control plane of a run with 1,024 workers: what the driver, `shoal plan`, `shoal ps` and
`shoal ledger` do, on made-up nodes and files of the size they would have.

Times are seconds of this process on a core, the median of some rounds; only a meeting of nodes is
measured by the clock.
"""

from __future__ import annotations

import os
import pickle
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import fleet
from benchmarks.fleet import WORKERS, WORKERS_PER_NODE
from cluster.nodes import room_for
from cluster.shared_folders import check_read
from cluster.slurm.rendezvous import Guest, Host, Meeting
from cluster.slurm.script import script
from launcher.driving.faults import fault_of
from launcher.driving.hangs import find_late
from launcher.driving.mailbox import Mailbox
from launcher.driving.policy import Fault, decide
from launcher.plan.length import worker_counts
from launcher.plan.plan import make_plan
from launcher.plan.verdict import judge
from launcher.records import looking
from launcher.records.epochs import epochs_of
from trainer.ledger import read_ledger
from trainer.order import Order

_T = TypeVar("_T")
_ROUNDS = 5
_LEDGER_STEPS = 2000
_RUNS = 1000
_RUN_STEPS = 2000


def measure(folder: Path) -> dict[str, Any]:
    """All parts."""
    return {
        "workers": WORKERS,
        "nodes": WORKERS // WORKERS_PER_NODE,
        "plan": _plan(),
        "placement": _placement(),
        "rendezvous": _rendezvous(),
        "heartbeats": _heartbeats(),
        "failures": _failures(),
        "steps": _steps(),
        "ledger": _ledger(folder / "ledger"),
        "ps": _ps(folder),
    }


def _plan() -> dict[str, Any]:
    recipe, known = fleet.recipe(), fleet.known()
    # On which nothing fits, so that every change is tried.
    small = replace(known, machine=replace(known.machine, gpu_memory_bytes=2**31))
    plan = make_plan(recipe, known)
    counts = worker_counts(recipe)
    assert plan.workers.workers == WORKERS
    return {
        "parameters": plan.base_parameters,
        "rows": fleet.EPOCH_ROWS,
        "plan_s": _time(lambda: make_plan(recipe, known)),
        "verdict": judge(recipe, known, plan).word,
        "no_change_fits_s": _time(lambda: judge(recipe, small, make_plan(recipe, small))),
        "worker_counts": len(counts),
        "worker_counts_s": _time(lambda: worker_counts(recipe)),
        "slurm_script_s": _time(lambda: script(recipe, Path("/shared/runs/x"), shoal="shoal")),
    }


def _placement() -> dict[str, Any]:
    """The worst case of either: as many nodes as workers."""
    recipe = fleet.recipe()
    free = {node: {"CPU": 1.0, "GPU": 1.0, "memory": 2.0**40} for node in fleet.node_ids(WORKERS)}
    assert room_for(recipe.cluster, free, gpu=True) == WORKERS
    hosts = [f"node{number:04d}" for number in range(WORKERS)]
    seen = [True] * WORKERS

    def prove() -> None:
        check_read("storage.path", Path("/"), hosts, by_first=seen, of_first=seen[1:])

    return {
        "nodes": WORKERS,
        "room_s": _time(lambda: room_for(recipe.cluster, free, gpu=True)),
        "storage_verdict_s": _time(prove),
    }


def _rendezvous() -> dict[str, Any]:
    """A job of 1,024 nodes meets, over this machine's loopback."""
    meeting = Meeting(job=os.getpid(), host="127.0.0.1", token=b"of a benchmark")
    with ExitStack() as stack:
        host = Host(meeting)
        stack.callback(host.close)
        begin = time.perf_counter()
        guests = []
        for number in range(1, WORKERS):
            guests.append(Guest(meeting, f"node{number:04d}", 60))
            stack.callback(guests[-1].close)
        while len(host.guests()) < WORKERS - 1:
            time.sleep(0.01)
        met = time.perf_counter()
        host.tell("10.0.0.1:6379")
        assert all(guest.hear(60) for guest in guests)
        told = time.perf_counter()
        return {
            "nodes": WORKERS,
            "all_have_come_s": met - begin,
            "all_are_told_s": told - met,
            "who_is_here_s": _time(host.guests),
        }


def _heartbeats() -> dict[str, Any]:
    """What the mailbox gets in a second, and what the driver takes twice as often and looks at."""
    mailbox = Mailbox()
    ranks, pulses = fleet.whereabouts(), fleet.pulses()

    def beat() -> None:
        for rank, pulse in pulses.items():
            mailbox.beat(rank, ranks[rank], pulse)

    beat_s = _time(beat)
    taken = mailbox.take()
    _, _, beats = taken
    late, act = find_late(beats, num_ranks=WORKERS, step_s=5.0, hang_s=None)
    assert late is None and not act
    return {
        "all_beat_s": beat_s,
        "take_s": _time(mailbox.take),
        "taken_bytes": len(pickle.dumps(taken)),
        "pickle_s": _time(lambda: pickle.loads(pickle.dumps(taken))),
        "find_late_s": _time(lambda: find_late(beats, num_ranks=WORKERS, step_s=5.0, hang_s=None)),
    }


def _failures() -> dict[str, Any]:
    """One rank dies, and all others tell of a broken connection; the hundredth time."""
    from ray.exceptions import ActorDiedError
    from ray.train.v2.api.exceptions import WorkerGroupError

    echo = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
    errors: dict[int, Exception] = dict.fromkeys(range(WORKERS), echo)
    errors[700] = ActorDiedError()
    failed = WorkerGroupError("it failed", errors)
    ranks = fleet.whereabouts()

    def understand() -> Fault:
        return fault_of(failed, ranks=ranks, step=100, logs=Path("/logs")).fault

    fault = understand()
    assert fault.kind == "worker" and fault.node == ranks[700].node
    recipe = fleet.recipe()
    faults = [
        Fault(kind="worker", what="it died", step=n, saved=n, node=fleet.node_ids(100)[n])
        for n in range(100)
    ]
    return {
        "fault_s": _time(understand),
        "decide_s": _time(lambda: decide(faults, recipe.failure, num_nodes=128)),
    }


def _steps() -> dict[str, Any]:
    """What every rank looks up in each step: rows of the global batch, in the middle of a run."""
    order = Order(
        num_rows=fleet.EPOCH_ROWS,
        seed=1,
        global_batch_size=fleet.ROWS_PER_STEP,
        micro_batch_size=1,
    )
    begin = time.process_time()
    order.rows(10_000)
    seek_s = time.process_time() - begin
    return {
        "rows_per_step": fleet.ROWS_PER_STEP,
        "first_step_s": seek_s,
        "rows_s": _time(lambda: order.rows(10_001)),
    }


def _ledger(folder: Path) -> dict[str, Any]:
    """Of two thousand steps in ten attempts: eight million rows, in two samples each."""
    rows = fleet.ROWS_PER_STEP
    fleet.write_ledger(folder, steps=_LEDGER_STEPS, rows_per_step=rows, attempts=10)
    read_s, read_bytes, account = _with_memory(lambda: read_ledger(folder))
    proof_s, proof_bytes, epochs = _with_memory(lambda: epochs_of(account))
    assert not any(epoch.repeated or epoch.lost for epoch in epochs)
    return {
        "steps": len(account.entries),
        "rows": len(account.entries) * rows,
        "file_bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "open_s": read_s,
        "open_memory_bytes": read_bytes,
        "prove_epochs_s": proof_s,
        "prove_epochs_memory_bytes": proof_bytes,
        "find_a_step_s": _time(lambda: account.entries[_LEDGER_STEPS // 2]),
    }


def _ps(folder: Path) -> dict[str, Any]:
    """A thousand runs, half of them jobs; SLURM's commands are scripts that know of no job."""
    fleet.write_runs(folder / "runs", _RUNS, steps=_RUN_STEPS)
    programs = folder / "bin"
    programs.mkdir()
    for name in ("squeue", "sacct"):
        program = programs / name
        program.write_text(f"#!/bin/sh\necho {name} >> {folder}/asked\n")
        program.chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{programs}:{path}"
    try:
        before, begin = _bytes_read(), time.process_time()
        seen = looking.see_all(folder / "runs")
        seconds, read = time.process_time() - begin, _bytes_read() - before
    finally:
        os.environ["PATH"] = path
    assert {one.told.word for one in seen} == {"finished"}
    files = [*folder.glob("runs/*/*.jsonl")]
    return {
        "runs": len(seen),
        "file_bytes": sum(file.stat().st_size for file in files),
        "read_bytes": read,
        "questions_to_slurm": len((folder / "asked").read_text().split()),
        "seconds": seconds,
    }


def _time(action: Callable[[], object]) -> float:
    """Median seconds."""
    rounds = []
    for _ in range(_ROUNDS):
        begin = time.process_time()
        action()
        rounds.append(time.process_time() - begin)
    return statistics.median(rounds)


def _with_memory(action: Callable[[], _T]) -> tuple[float, int, _T]:
    """Seconds, and how much more memory was resident at the most."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    begin = time.process_time()
    result = action()
    return time.process_time() - begin, max(0, _status("VmHWM") - before), result


def _status(name: str) -> int:
    """A number of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def _bytes_read() -> int:
    """What this process has read so far, from wherever."""
    return int(Path("/proc/self/io").read_text().split()[1])
