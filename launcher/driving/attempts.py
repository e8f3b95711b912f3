"""A run over as many attempts as it takes: start workers, and after a fault do what policy says."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections import deque
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.checkpoint_folder import read_position
from adapters.mirror import open_mirror
from cluster import nodes
from cluster.ray_cluster import Connection, resources, uses_gpu
from launcher.driving.drive import Crew, drive
from launcher.driving.faults import AttemptFailedError
from launcher.driving.policy import Decision, Fault, blamed, choose_workers, decide
from launcher.records import runs
from launcher.records.jobs import note_exclusion
from launcher.signals import Wishes, noted
from launcher.terminal import Display, seconds_text
from recipes.errors import ClusterError, NodesLostError, StorageError, TrainingError
from trainer.claim import claim

if TYPE_CHECKING:
    from trainer.job import Job

_SHOWN_ONLY = ("phase", "step")
_STOPPING = {
    "interrupted": "Stopping after this step; press Ctrl-C again to stop at once",
    "preempted": "Asked to give the machine back: stopping after this step",
    "deadline": "The time limit is near: stopping after this step",
    "draining": "A node is about to be taken away: saving, then going on without it",
    "grow": "There is room for more workers: saving, then going on with them",
}
_REGROUP = ("draining", "grow")
_QUEUED_AGAIN = ("preempted", "deadline")
# The resources of an attempt that ended come back in a moment: no reason for a smaller crew.
_SETTLE_S = 10.0
_ASK_S = 1.0


def run_attempts(job: Job, connection: Connection, display: Display) -> dict[str, Any]:
    """Do a job, whatever it takes: the result of the attempt that ended it, as `drive` tells it.

    Raises the error of the last attempt once policy says to stop.
    """
    with noted() as wishes:
        return _Attempts(job, connection, display, wishes).run()


class _Attempts:
    def __init__(self, job: Job, connection: Connection, display: Display, wishes: Wishes) -> None:
        self.job = job
        self.connection = connection
        self.display = display
        self.wishes = wishes
        self.limits = job.recipe.failure
        self.gpu = uses_gpu(job.recipe.cluster, resources())
        self.faults: list[Fault] = []
        self.avoid: frozenset[str] = frozenset()
        self.unwritten: deque[dict[str, Any]] = deque()

    def run(self) -> dict[str, Any]:
        try:
            result = self._run()
        except NodesLostError:
            self._leave_out({*blamed(self.faults), *self.connection.gone()})
            raise
        if result["why"] in _QUEUED_AGAIN and result["stopped"]:
            self._leave_out(blamed(self.faults))
        return result

    def _leave_out(self, bad: Collection[str]) -> None:
        """Nodes that the job is not to get when it is queued again."""
        if not bad:
            return
        try:
            found = self.connection.leave_out(bad)
            if found is not None:
                note_exclusion(self.job.run_dir, found, self.display)
        except (ClusterError, StorageError) as error:  # it may well do without
            self.display.line(f"Not left out: {', '.join(sorted(bad))}. {error}")

    def _run(self) -> dict[str, Any]:
        while True:
            crew = self._crew()
            self._claim()
            details = {
                "workers": crew.workers,
                "avoid": sorted(crew.avoid),
                "driver_node": nodes.own_node(),
            }
            self._note("attempt", details)
            self.display.phase("starting workers", 0, 0)
            try:
                result = drive(self.job, crew, self.connection, self._tell, self.wishes)
            except AttemptFailedError as failed:
                self._recover(failed)
                continue
            if result["why"] in _REGROUP and result["stopped"]:
                self._go_on_from_newest()
                continue
            return result

    def _crew(self) -> Crew:
        """Workers for the next attempt; waits until there is room for enough of them."""
        cluster = self.job.recipe.cluster
        train = self.job.recipe.train
        least, most = cluster.least_workers, cluster.most_workers
        useful = choose_workers(
            least, most, most, train.global_batch_size // train.micro_batch_size
        )
        assert useful is not None
        begin = time.monotonic()
        told = False
        while True:
            fits = nodes.workers_that_fit(cluster, gpu=self.gpu, avoid=self.avoid)
            waited = time.monotonic() - begin
            if fits >= useful or (fits >= least and waited >= _SETTLE_S):
                workers = min(fits, useful)
                break
            if waited >= self.limits.wait_s:
                # Only a new start gets a job other nodes than those it was given.
                kind = NodesLostError if cluster.kind == "slurm" and self.faults else ClusterError
                raise kind(
                    f"cluster.workers = {least}: the cluster has had room for {fits} for "
                    f"{seconds_text(waited)} (failure.wait_s)"
                )
            if waited >= _SETTLE_S and not told:
                told = True
                self._note("waiting", {"workers": least, "fits": fits})
                self.display.line(
                    f"Waiting for room for {least} workers; the cluster has room for {fits}"
                )
            self._sleep(_ASK_S)
        if workers != most:
            self.display.line(f"Going on with {workers} of {most} workers")
        return Crew(workers=workers, gpu=self.gpu, may_grow_to=useful, avoid=self.avoid)

    def _recover(self, failed: AttemptFailedError) -> None:
        """Make ready for the next attempt, or raise why there is none."""
        # First of all: ranks whose node is cut off, or whose Ray died, train on for a while.
        self._claim()
        checkpoint = self._newest()
        saved = read_position(checkpoint).step if checkpoint is not None else 0
        lost = self.connection.is_lost()
        fault = dataclasses.replace(
            failed.fault, saved=saved, node_name=self._name_of(failed.fault.node, lost=lost)
        )
        self.faults.append(fault)
        decision = decide(self.faults, self.limits, 1 if lost else len(nodes.alive()))
        self._note("fault", {**dataclasses.asdict(fault), **_as_details(decision)})
        if decision.action == "stop":
            if fault.kind in ("mistake", "bad_loss"):
                raise failed.error
            raise TrainingError(f"{failed.error}. Not started again: {decision.why}")
        self.display.line(
            f"{fault.what}: going on from step {saved}"
            + (f" in {seconds_text(decision.wait_s)}" if decision.wait_s >= 1 else "")
            + f" ({decision.why})"
        )
        self._sleep(decision.wait_s)
        if lost:
            self.display.phase("starting Ray again", 0, 0)
            self.connection.close()
            self.connection.open()
            self.display.phase("starting Ray again", 1, 1)
        self.avoid = decision.avoid
        self.job = dataclasses.replace(
            self.job, resume_from=checkpoint, skip=(*self.job.skip, *decision.skip)
        )

    def _name_of(self, node: str | None, *, lost: bool) -> str | None:
        return nodes.name_of(node) if node is not None and not lost else None

    def _claim(self) -> None:
        """From now on nothing but the next attempt writes into the run. Waits while it cannot be
        written, such as on a full disk. Measuring claims nothing: the run may be under way."""
        if self.job.action != "train":
            return
        self.job = dataclasses.replace(self.job, token=uuid.uuid4().hex)
        begin = time.monotonic()
        told = False
        while True:
            try:
                claim(self.job.run_dir, self.job.token)
                return
            except StorageError as error:
                if time.monotonic() - begin > self.limits.wait_s:
                    raise
                if not told:
                    told = True
                    self.display.line(f"Waiting: {error}")
                    self._note("waiting", {"for": str(error)})
            self._sleep(_ASK_S)

    def _go_on_from_newest(self) -> None:
        self.job = dataclasses.replace(self.job, resume_from=self._newest())

    def _newest(self) -> Path | None:
        return newest_checkpoint(self.job.run_dir, self.display)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.wishes.count:
                self.wishes.interrupt()
            time.sleep(min(left, 0.1))

    def _tell(self, kind: str, details: Mapping[str, Any]) -> None:
        if kind == "phase":
            self.display.phase(details["name"], details["done"], details["total"])
        elif kind == "step":
            self.display.step(details)
        elif kind == "stopping":
            self.display.line(_STOPPING[details["why"]])
        elif kind == "late":
            self.display.line(_late_line(details))
        if kind not in _SHOWN_ONLY:
            self._note(kind, details)

    def _note(self, kind: str, details: Mapping[str, Any]) -> None:
        """Append to events.jsonl; what cannot be written now is, in order, with what comes next."""
        self.unwritten.append(runs.event(kind, details))
        with suppress(StorageError):
            while self.unwritten:
                runs.append(self.job.run_dir, self.unwritten[0])
                self.unwritten.popleft()


def newest_checkpoint(run_dir: Path, display: Display) -> Path | None:
    """The newest checkpoint that is whole; why others are passed over is shown and noted."""

    def pass_over(why: str) -> None:
        display.line(f"Passing over a checkpoint: {why}")
        runs.append_event(run_dir, "bad_checkpoint", {"why": why})

    mirror = open_mirror(run_dir)
    folder = mirror.newest(pass_over)
    if folder is not None:
        mirror.secure(folder)
    return folder


def _as_details(decision: Decision) -> dict[str, Any]:
    return {
        "action": decision.action,
        "why": decision.why,
        "wait_s": decision.wait_s,
        "avoid": sorted(decision.avoid),
        "skip": list(decision.skip),
    }


def _late_line(details: Mapping[str, Any]) -> str:
    if details["is_unheard"]:
        return (
            f"Nothing is heard of {details['host']}, the node of rank {details['rank']}, for "
            f"{details['late_s']:.0f} s, in step {details['step']}, {details['phase']}: it is down "
            "or cut off"
        )
    who = f"Rank {details['rank']} on {details['host']} (process {details['pid']})"
    if not details["alone"]:
        who += ", like all others,"
    elif details["late_ranks"] > 1:
        who += f", one of {details['late_ranks']},"
    return (
        f"{who} is late by {details['late_s']:.0f} s in step {details['step']}, "
        f"{details['phase']}; the process is {details['status']}. Its stack: {details['stack']}"
    )
