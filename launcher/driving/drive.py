"""One attempt, with Ray Train: the one place where Ray meets the trainer.

Ranks tell what they do through a mailbox, an actor that the driver empties; the driver tells them
through it to save and stop. Ray Train runs in a thread, so that the main thread hears signals.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from cluster import nodes
from cluster.ray_cluster import Connection
from launcher.access import Access
from launcher.driving.faults import AttemptFailedError, Whereabouts, fault_of
from launcher.driving.mailbox import MailboxReporter, open_mailbox, start_beating
from launcher.driving.policy import Fault, is_early, must_stop
from launcher.driving.watch import Watch
from launcher.records.log_files import rank_log
from launcher.signals import Wishes
from recipes.errors import ClusterError, TrainingError

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

    from trainer.job import Job

_POLL_S = 0.5
_LOOK_FOR_ROOM_S = 10.0
_COLLECTIVE_TIMEOUT_S = 1800
# Restarting is decided by launcher/driving/policy; Ray by itself would retry a start for ever.
_NO_RESTARTS: dict[str, Any] = {"max_failures": 0, "controller_failure_limit": 0}

OnEvent = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Who works on an attempt."""

    workers: int
    gpu: bool
    may_grow_to: int
    avoid: frozenset[str] = frozenset()
    """Nodes to leave out, by Ray's ids."""


def import_ray_train() -> None:
    """Take the three seconds that Ray Train and its torch need, while something else is awaited."""
    import ray.train.torch  # noqa: F401


def drive(
    job: Job, crew: Crew, connection: Connection, on_event: OnEvent, wishes: Wishes
) -> dict[str, Any]:
    """Run a job on the connected cluster until it ends or is stopped: the result of
    `trainer.worker.work`, and `why` it was stopped, if it was: `interrupted`, `preempted`,
    `deadline`, `draining`, `grow`.

    Signals while training let the ranks save and stop after their step; at any other time they are
    raised. Raises `AttemptFailedError`.
    """
    attempt = _Attempt(job, crew, connection, on_event, wishes)
    try:
        attempt.run()
    except RayError as error:
        what = str(error).splitlines()[0].rstrip(".")
        raise attempt.lost(f"Ray does not answer: {what}") from error
    if attempt.fit.error is not None:
        raise attempt.failed(attempt.fit.error) from attempt.fit.error
    return {**attempt.fit.result, "why": attempt.why}


class _Attempt:
    """An attempt under way, as the driver sees it."""

    def __init__(
        self,
        job: Job,
        crew: Crew,
        connection: Connection,
        on_event: OnEvent,
        wishes: Wishes,
    ) -> None:
        self.job = job
        self.crew = crew
        self.connection = connection
        self.wishes = wishes
        self.why: str | None = None
        self._on_event = on_event
        self._mailbox = open_mailbox()
        self.fit = _Fit(_trainer(job, crew, self._mailbox))
        self._ranks: dict[int, Whereabouts] = {}
        self._training = False
        self._step = 0
        self._save_s = 0.0
        self._looked_for_room = time.monotonic()
        self._watch = Watch(
            num_ranks=crew.workers,
            start_s=job.recipe.failure.start_s,
            hang_s=job.recipe.failure.hang_s,
            logs=rank_log(job.run_dir, 0).parent,
            on_event=on_event,
        )

    def run(self) -> None:
        self.fit.start()
        while not self.fit.wait(_POLL_S):
            if self.connection.is_lost():
                raise self.lost("Ray on this machine has died")
            self._listen()
            if self.wishes.count and not self._training:
                self.wishes.interrupt()
            if self.why is None:
                self._maybe_stop()
        self._listen()

    def _listen(self) -> None:
        events, self._ranks, beats = ray.get(self._mailbox.take.remote())
        for kind, details in events:
            if kind in ("phase", "step"):
                self._training = kind == "step" or details["name"] == "saving"
            if kind == "step":
                self._step = details["step"]
                self._watch.step_took(details["seconds"])
            if kind == "checkpoint":
                self._save_s = max(self._save_s, details["stall_s"] + details["write_s"])
            self._on_event(kind, details)
        self._watch.look(self._ranks, beats)

    def _maybe_stop(self) -> None:
        """Ask the ranks to save and stop, if there is a reason to."""
        if not self._training:
            return
        self.why = self._reason_to_stop()
        if self.why is not None:
            self._mailbox.request_stop.remote()
            self._on_event("stopping", {"why": self.why})

    def _reason_to_stop(self) -> str | None:
        if self.wishes.count and not self.wishes.preempted:
            return "interrupted"
        end = _end_of_allocation()
        if self.wishes.preempted:
            signal_s = self.job.recipe.slurm.signal_s
            if not is_early(time.time(), end, signal_s) or self._soon(end):
                return "preempted"
        if end is not None and self._soon(end):
            return "deadline"
        now = time.monotonic()
        if now - self._looked_for_room < _LOOK_FOR_ROOM_S:
            return None
        self._looked_for_room = now
        here = {where.node for where in self._ranks.values()}
        for node, deadline in nodes.draining().items():
            if node in here and self._soon(deadline):
                return "draining"
        if self._could_grow():
            return "grow"
        return None

    def _soon(self, deadline: float | None) -> bool:
        return must_stop(time.time(), deadline, self._watch.step_s or 0.0, self._save_s)

    def _could_grow(self) -> bool:
        if self.crew.workers >= self.crew.may_grow_to:
            return False
        cluster = self.job.recipe.cluster
        return nodes.workers_that_fit(cluster, gpu=self.crew.gpu, avoid=self.crew.avoid) > 0

    def lost(self, what: str) -> AttemptFailedError:
        """The cluster does not answer. Its workers would notice in half a minute; those that are
        on this machine and were heard of end now."""
        nodes.kill_here([w.pid for w in self._ranks.values() if w.host == socket.gethostname()])
        fault = Fault(kind="cluster", what=what, step=self._step)
        return AttemptFailedError(fault, ClusterError(what))

    def failed(self, error: BaseException) -> AttemptFailedError:
        """What went wrong on the workers."""
        failed = fault_of(
            error,
            ranks=self._ranks,
            step=self._step,
            logs=rank_log(self.job.run_dir, 0).parent,
            lost_nodes=self._lost_nodes(),
        )
        if self._watch.hang is None or failed.fault.kind == "node":
            return failed
        fault = Fault(
            kind="hang",
            what=self._watch.hang,
            said=failed.fault.said,
            step=self._step,
            node=self._watch.hung_node,
        )
        return AttemptFailedError(fault, TrainingError(fault.what))

    def _lost_nodes(self) -> set[str]:
        """Nodes of ranks that Ray has given up, or that are not heard of: Ray may need a minute."""
        if self.connection.is_lost():  # there is nobody to ask
            return self._watch.unheard_nodes
        used = {where.node for where in self._ranks.values()}
        return (used - nodes.alive()) | self._watch.unheard_nodes


def _end_of_allocation() -> float | None:
    """When SLURM's time limit ends this job (s since 1970), if it runs under SLURM."""
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    return float(end) if end.isdigit() else None


@dataclass(slots=True)
class _Fit:
    """`trainer.fit()` in a thread of its own."""

    trainer: TorchTrainer
    result: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True, name="ray-train")
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self.trainer.fit().return_value  # type: ignore[attr-defined]
        except BaseException as error:  # raised again in the main thread
            self.error = error

    def wait(self, timeout_s: float) -> bool:
        assert self._thread is not None
        self._thread.join(timeout_s)
        return not self._thread.is_alive()


def _trainer(job: Job, crew: Crew, mailbox: Any) -> TorchTrainer:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer  # imports torch

    cluster = job.recipe.cluster
    per_worker: dict[str, float] = {"CPU": cluster.cpus_per_worker}
    if crew.gpu:
        per_worker["GPU"] = 1
    return TorchTrainer(
        _rank_main,  # type: ignore[arg-type]
        train_loop_config={
            "job": job,
            "mailbox": mailbox,
            "access": Access.of(job.recipe, [job.address]),
        },
        torch_config=TorchConfig(
            backend="nccl" if crew.gpu else "gloo", timeout_s=_COLLECTIVE_TIMEOUT_S
        ),
        scaling_config=ScalingConfig(
            num_workers=crew.workers,
            use_gpu=crew.gpu,
            resources_per_worker=per_worker,
            label_selector=_elsewhere(crew.avoid),  # type: ignore[call-arg]
            # Without GPUs every core of every node is to be used, not one node after the other.
            placement_strategy="PACK" if crew.gpu else "SPREAD",
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(job.run_dir),
            failure_config=FailureConfig(**_NO_RESTARTS),
            worker_runtime_env={  # type: ignore[call-arg]
                "env_vars": _worker_environment(crew.gpu, cluster.cpus_per_worker)
            },
        ),
    )


def _elsewhere(avoid: frozenset[str]) -> dict[str, str] | None:
    return {"ray.io/node-id": f"!in({','.join(sorted(avoid))})"} if avoid else None


def _worker_environment(gpu: bool, threads: int) -> dict[str, str]:
    own = {
        "DS_ACCELERATOR": "cuda" if gpu else "cpu",
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # The driver has fetched the base already; a rank never asks the hub.
        "HF_HUB_OFFLINE": "1",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }
    passed_on = ("HF_HOME", "TORCH_EXTENSIONS_DIR", "NCCL_DEBUG", "NCCL_SOCKET_IFNAME")
    return own | {name: os.environ[name] for name in passed_on if name in os.environ}


def _rank_main(config: Mapping[str, Any]) -> dict[str, Any]:
    """The training function of Ray Train, on each worker."""
    job: Job = config["job"]
    config["access"].use()
    import ray.train

    rank = ray.train.get_context().get_world_rank()
    _redirect_output(rank_log(job.run_dir, rank))
    from trainer.pulse import Pulse

    pulse = Pulse()
    start_beating(config["mailbox"], rank, pulse)
    from trainer.worker import work

    return work(job, MailboxReporter(config["mailbox"]), pulse)


def _redirect_output(file: Path) -> None:
    """Send all this process prints, libraries in C included, to a file of the run."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    os.write(1, f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} ---\n".encode())
