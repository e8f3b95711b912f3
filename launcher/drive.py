"""Driving the ranks with Ray Train: the one place where Ray meets the trainer.

Ranks tell what they do through a mailbox, an actor that the driver empties; the driver tells them
through it to save and stop. Training itself runs in a thread, so that the main thread hears Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from cluster.ray_cluster import resources, uses_gpu
from recipes.errors import ShoalError, TrainingError

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

    from trainer.job import Job

_POLL_S = 0.5
_COLLECTIVE_TIMEOUT_S = 1800

Event = tuple[str, dict[str, Any]]
"""What happened (`phase`, `step`, or a kind of `events.jsonl`) and its details."""


@ray.remote(num_cpus=0)
class Mailbox:
    """Events on their way from rank 0 to the driver, and the wish to stop on its way back."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._stop = False

    def put(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def request_stop(self) -> None:
        self._stop = True

    def stop_requested(self) -> bool:
        return self._stop


class _MailboxReporter:
    """The trainer's reporter on the side of the worker."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def phase(self, name: str, done: int, total: int) -> None:
        self._put("phase", {"name": name, "done": done, "total": total})

    def step(self, metrics: Mapping[str, Any]) -> None:
        self._put("step", metrics)

    def event(self, kind: str, details: Mapping[str, Any]) -> None:
        self._put(kind, details)

    def _put(self, kind: str, details: Mapping[str, Any]) -> None:
        self._mailbox.put.remote((kind, dict(details)))

    def stop_requested(self) -> bool:
        return bool(ray.get(self._mailbox.stop_requested.remote()))


def import_ray_train() -> None:
    """Take the three seconds that Ray Train and its torch need, while something else is awaited."""
    import ray.train.torch  # noqa: F401


def drive(job: Job, on_event: Callable[[str, Mapping[str, Any]], None]) -> dict[str, Any]:
    """Run a job on the connected cluster; the result of `trainer.worker.work`.

    A first Ctrl-C while training lets the ranks save and stop after their step; at any other time,
    and at the second, it is raised at once. Raises the error of the rank that failed.
    """
    mailbox = Mailbox.remote()  # type: ignore[attr-defined]
    fit = _Fit(_trainer(job, mailbox))
    fit.start()
    listener = _Listener(mailbox, on_event)
    with _interrupts_counted() as interrupts:
        while not fit.wait(_POLL_S):
            listener.listen()
            if interrupts.count and not listener.training:
                raise KeyboardInterrupt
            if interrupts.count and not listener.stopping:
                listener.stopping = True
                mailbox.request_stop.remote()
                on_event("stopping", {})
    listener.listen()
    if fit.error is not None:
        raise _plain(fit.error, job.run_dir) from fit.error
    return fit.result


@dataclass(slots=True)
class _Interrupts:
    count: int = 0

    def handle(self, number: int, frame: Any) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt


@contextmanager
def _interrupts_counted() -> Iterator[_Interrupts]:
    """Ctrl-C and SIGTERM are noted, not raised, so that no event is lost; the second is raised."""
    interrupts = _Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts  # only the main thread hears signals
        return
    before = {
        number: signal.signal(number, interrupts.handle)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class _Listener:
    mailbox: Any
    on_event: Callable[[str, Mapping[str, Any]], None]
    training: bool = False
    stopping: bool = False

    def listen(self) -> None:
        for kind, details in ray.get(self.mailbox.take.remote()):
            if kind in ("phase", "step"):
                self.training = kind == "step" or details["name"] == "saving"
            self.on_event(kind, details)


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


def _trainer(job: Job, mailbox: Any) -> TorchTrainer:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer  # imports torch

    cluster = job.recipe.cluster
    gpu = uses_gpu(cluster, resources())
    per_worker: dict[str, float] = {"CPU": cluster.cpus_per_worker}
    if gpu:
        per_worker["GPU"] = 1
    return TorchTrainer(
        _rank_main,  # type: ignore[arg-type]
        train_loop_config={"job": job, "mailbox": mailbox},
        torch_config=TorchConfig(
            backend="nccl" if gpu else "gloo", timeout_s=_COLLECTIVE_TIMEOUT_S
        ),
        scaling_config=ScalingConfig(
            num_workers=cluster.workers, use_gpu=gpu, resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(job.run_dir),
            worker_runtime_env={  # type: ignore[call-arg]
                "env_vars": _worker_environment(gpu, cluster.cpus_per_worker)
            },
        ),
    )


def _worker_environment(gpu: bool, threads: int) -> dict[str, str]:
    environment = {
        "DS_ACCELERATOR": "cuda" if gpu else "cpu",
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # The driver has fetched the base already; a rank never asks the hub.
        "HF_HUB_OFFLINE": "1",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }
    passed_on = ("HF_HOME", "TORCH_EXTENSIONS_DIR", "NCCL_DEBUG", "NCCL_SOCKET_IFNAME")
    return environment | {name: os.environ[name] for name in passed_on if name in os.environ}


def _rank_main(config: Mapping[str, Any]) -> dict[str, Any]:
    """The training function of Ray Train, on each worker."""
    job: Job = config["job"]
    import ray.train

    _redirect_output(log_file(job.run_dir, ray.train.get_context().get_world_rank()))
    from trainer.worker import work

    return work(job, _MailboxReporter(config["mailbox"]))


def log_file(run_dir: Path, rank: int) -> Path:
    """Where a rank's own output and that of its libraries goes."""
    return run_dir / "logs" / f"rank_{rank:03d}.log"


def _redirect_output(file: Path) -> None:
    """Send all this process prints, libraries in C included, to a file of the run."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    os.write(1, f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} ---\n".encode())


def _plain(error: BaseException, run_dir: Path) -> BaseException:
    """The error a person can do something with: a rank's own, or where to look for more."""
    from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

    failures = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    causes = [_cause(failure) for _, failure in sorted(failures.items())]
    for cause in causes:
        if isinstance(cause, ShoalError):
            return cause
    if not isinstance(error, TrainingFailedError):
        return error
    what = causes[0] if causes else error
    rank = min(failures) if failures else 0
    return TrainingError(
        f"rank {rank} failed: {type(what).__name__}: {str(what).strip().splitlines()[-1]}. "
        f"The whole story is in {log_file(run_dir, rank)}"
    )


def _cause(error: BaseException) -> BaseException:
    """The innermost reason of an error that Ray has wrapped."""
    inner = getattr(error, "cause", None) or error.__cause__
    return _cause(inner) if isinstance(inner, BaseException) else error
