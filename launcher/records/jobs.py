"""The scheduler's job of a run: noted in the run's folder, asked for, and told in plain words."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cluster.job import Job, JobState
from cluster.job_words import ASK_AGAIN, EXCLUDE_FILE, INTERRUPTED
from cluster.schedulers import scheduler
from cluster.slurm.exclusion import Exclusion
from launcher.records import runs
from launcher.records.locks import is_held
from launcher.terminal import Display
from recipes.errors import ClusterError, ShoalError
from recipes.files import write_whole

FILE = "job.json"
_KEY = ".key"


def note(run_dir: Path, job: Job) -> None:
    write_whole(run_dir / FILE, json.dumps(asdict(job)) + "\n")


def note_exclusion(run_dir: Path, found: Exclusion, display: Display) -> None:
    """Tell which nodes a job is not to get again, the job's script too; or why it may."""
    if found.every:
        write_whole(run_dir / EXCLUDE_FILE, f"{found.every}\n")
    display.line(found.why)
    kind = "excluded" if found.every else "not_excluded"
    runs.append_event(run_dir, kind, {"nodes": list(found.bad), "why": found.why})


def job_of(run_dir: Path) -> Job | None:
    """The job of a run that was submitted, or None."""
    try:
        return Job(**json.loads((run_dir / FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def key_of(run_dir: Path) -> str:
    """What tells a run from others of its name elsewhere; made when first asked for."""
    file = run_dir / _KEY
    if not file.exists():
        set_key(run_dir, uuid.uuid4().hex)
    return file.read_text(encoding="utf-8")


def set_key(run_dir: Path, key: str) -> None:
    write_whole(run_dir / _KEY, key)


def state_of(run_dir: Path) -> JobState:
    """What runs a run: its job, or a shoal on some machine that holds its lock."""
    return states_of([run_dir])[0]


def states_of(run_dirs: Sequence[Path]) -> list[JobState]:
    """The same of many runs. A scheduler is asked once for all the jobs that it has."""
    jobs = [job_of(run_dir) for run_dir in run_dirs]
    found: dict[Job, JobState] = {}
    for place in {(job.kind, job.address) for job in jobs if job is not None}:
        own = [job for job in jobs if job is not None and (job.kind, job.address) == place]
        try:
            states = scheduler(place[0]).states(own)
        except ClusterError as error:
            # Runs of other places are still worth telling.
            states = [JobState(phase="unknown", why=str(error))] * len(own)
        found |= zip(own, states, strict=True)
    return [
        found[job] if job is not None else _state_here(run_dir)
        for run_dir, job in zip(run_dirs, jobs, strict=True)
    ]


def _state_here(run_dir: Path) -> JobState:
    file = run_dir / ".lock"
    try:
        return JobState(phase="running" if is_held(file) else "ended")
    except OSError as error:
        return JobState(phase="unknown", why=f"{file}: {error.strerror or error}")


Word = Literal[
    "queued",
    "starting",
    "running",
    "finished",
    "stopped",
    "failed",
    "died",
    "not formed",
    "unknown",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A run's state for a person."""

    word: Word
    text: str = ""


_ENDS: Mapping[str, Word] = {
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
    "interrupted": "stopped",
    "not_formed": "not formed",
}
_TURNS = (*_ENDS, "started")


_BY_STATUS: Mapping[int, Word] = {0: "finished", ASK_AGAIN: "stopped", INTERRUPTED: "stopped"}


def told(state: JobState, events: Sequence[Mapping[str, Any]]) -> Told:
    """What to call the state of a run, from its scheduler's word and its own events.

    Three failures are told apart: a job that ended before the run's driver began (its cluster did
    not form), a driver that ended without a word (it died), and a run that failed and said why.
    """
    last = last_turn(events)
    ended = last is not None and last["event"] in _ENDS
    reason = " ".join(part for part in (state.word, state.why) if part)
    if state.phase == "queued":
        return Told(word="queued", text=reason)
    if state.phase == "running":
        return Told(word="running" if last is not None else "starting", text=state.nodes)
    if ended and last is not None:
        text = last.get("error", "").splitlines()
        return Told(word=_ENDS[last["event"]], text=text[0] if text else "")
    if state.phase == "unknown":
        return Told(word="unknown", text=state.why)
    if state.word.startswith("CANCELLED") or state.word == "STOPPED":
        return Told(word="stopped", text="its job was cancelled")
    if last is None and state.exit_status is not None and state.exit_status >= 0:
        # The run wrote its events where only the cluster sees them.
        return Told(word=_BY_STATUS.get(state.exit_status, "failed"), text=state.why)
    if last is None:
        return Told(word="not formed", text=f"the job ended before the run began: {reason}")
    return Told(word="died", text=f"the driver ended without a word: {reason}".rstrip(": "))


def noted(run_dir: Path, drive: Callable[[], None]) -> None:
    """Drive a run. What ends it before it has begun is in its events too: a job has no terminal."""
    try:
        drive()
    except ShoalError as error:
        last = last_turn(runs.read_events(run_dir))
        if last is None:
            kind = "not_formed" if isinstance(error, ClusterError) else "failed"
            runs.append_event(run_dir, kind, {"error": str(error)})
        raise


def last_turn(events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The last beginning or end of a run since it was submitted, if there was any."""
    since = _since_submitted(events)
    return next((e for e in reversed(since) if e["event"] in _TURNS), None)


def tell_last(newest_first: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of a run's events those that `told` needs, in order: no more is asked for."""
    found: list[Mapping[str, Any]] = []
    for event in newest_first:
        found.insert(0, event)
        if event["event"] in (*_TURNS, "submitted"):
            break
    return found


def _since_submitted(events: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    for number, event in reversed(list(enumerate(events))):
        if event["event"] == "submitted":
            return events[number + 1 :]
    return events
