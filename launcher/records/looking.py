"""Looking at runs from outside: what state they are in, how far they are, what they print."""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from cluster.job import Job, JobState
from cluster.schedulers import scheduler
from launcher.records import jobs, runs
from launcher.records.jobs import Told
from launcher.records.log_files import rank_log
from launcher.terminal import seconds_text
from recipes.errors import CheckpointError
from recipes.listing import listed
from trainer.metrics import last_step

_POLL_S = 2.0
# A job's last lines may reach this machine a little later than its end, on a network file system.
_SETTLE_POLLS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A run as it is now."""

    name: str
    job: Job | None
    told: Told
    step: int | None
    loss: float | None
    changed: datetime

    def row(self) -> list[str]:
        """For a table: name, place, state, step, loss, last change."""
        ago = (datetime.now(UTC) - self.changed).total_seconds()
        return [
            self.name,
            f"{self.job.kind} {self.job.id}" if self.job else "here",
            self.told.word,
            "" if self.step is None else str(self.step),
            "" if self.loss is None else f"{self.loss:.4f}",
            f"{seconds_text(max(ago, 0))} ago",
        ]


COLUMNS = ("run", "place", "state", "step", "loss", "changed")


def see(run_dir: Path) -> Seen:
    """Look at a run. Raises `ClusterError` when its scheduler cannot be asked."""
    return _seen(run_dir, jobs.state_of(run_dir))


def see_all(storage: Path) -> list[Seen]:
    """Look at all runs of a folder, at the ends of their files only."""
    folders = [storage / name for name in runs.names(storage)]
    seen = []
    for folder, state in zip(folders, jobs.states_of(folders), strict=True):
        with suppress(FileNotFoundError):  # it came to nothing meanwhile
            seen.append(_seen(folder, state))
    return seen


def _seen(run_dir: Path, state: JobState) -> Seen:
    last = last_step(run_dir / "metrics.jsonl") or {}
    files = [
        file for file in (run_dir / "events.jsonl", run_dir / "metrics.jsonl") if file.exists()
    ]
    changed = max((file.stat().st_mtime for file in files), default=run_dir.stat().st_mtime)
    return Seen(
        name=run_dir.name,
        job=jobs.job_of(run_dir),
        told=jobs.told(state, jobs.tell_last(runs.events_from_end(run_dir))),
        step=last.get("step"),
        loss=last.get("loss"),
        changed=datetime.fromtimestamp(changed, UTC),
    )


def recent_events(run_dir: Path, count: int) -> list[str]:
    """The last events, each as one line."""
    last = islice(runs.events_from_end(run_dir), count)
    return [_event_line(event) for event in reversed(list(last))]


def _event_line(event: Mapping[str, Any]) -> str:
    time_ = datetime.fromisoformat(event["time"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    hidden = ("time", "event", "answers")
    details = ", ".join(f"{k} {_short(v)}" for k, v in event.items() if k not in hidden)
    return f"{time_}  {event['event']:<12} {details}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= 100 else f"{text[:99]}…"


def _log_of(run_dir: Path, rank: int | None) -> Callable[[int], bytes]:
    """What a run's job prints, or one of its ranks, from a position on.

    Raises `CheckpointError` when there is no such log, with those there are.
    """
    if rank is None and (job := jobs.job_of(run_dir)) is not None:
        return partial(scheduler(job.kind).log, job, run_dir)
    file = rank_log(run_dir, rank or 0)
    if not file.exists():
        known = listed([path.name for path in sorted(file.parent.glob("*.log"))])
        raise CheckpointError(f"{file}: there is no such log. There are: {known or 'none yet'}")
    return partial(_read, file)


def _read(file: Path, position: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(position)
        return stream.read()


def read_log(run_dir: Path, *, rank: int | None, follow: bool) -> Iterator[str]:
    """What a run's job prints, or one of its ranks; with `follow` until the run has ended.

    Raises `CheckpointError` when there is no such log, `ClusterError` when it cannot be had.
    """
    read = _log_of(run_dir, rank)
    # What is there so far may end in the middle of a character.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    position = polls_since_end = 0
    while polls_since_end <= _SETTLE_POLLS:
        ended = not follow or jobs.state_of(run_dir).phase in ("ended", "unknown")
        if part := read(position):
            position += len(part)
            yield decoder.decode(part, final=not follow)
        if not follow:
            return
        polls_since_end += ended
        time.sleep(_POLL_S)


def rows(seen: Sequence[Seen]) -> list[list[str]]:
    """Rows for a table, the last changed last."""
    return [one.row() for one in sorted(seen, key=lambda one: one.changed)]
