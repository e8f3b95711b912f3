"""The driver's part of a run that is also kept elsewhere: recipe, events and logs follow there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from adapters.mirror import Mirror, open_mirror
from launcher.terminal import Display
from recipes.errors import StorageError

_EVENTS_S = 2.0
# Logs are pushed whole, and may be long.
_LOGS_EVERY = 30
_EVENTS = ("recipe.yaml", "plan.json", "events.jsonl")
_LOGS = "logs"


@contextmanager
def followed(run_dir: Path, display: Display) -> Iterator[Callable[[], None]]:
    """What the driver writes into a run is brought to the run's address meanwhile and at the end.
    What is yielded ends the first: then nothing is on its way.

    A store that cannot be reached meanwhile is told once; at the end it is a `StorageError`, unless
    there is another error already.
    """
    mirror = open_mirror(run_dir)
    if mirror.address is None:
        yield lambda: None
        return
    ended = threading.Event()
    thread = threading.Thread(
        target=_follow, args=(mirror, ended, display), daemon=True, name="following"
    )
    thread.start()
    try:
        yield partial(_end, thread, ended)
    except BaseException:
        _end(thread, ended)
        try:
            mirror.push(*_EVENTS, _LOGS)
        except StorageError as error:
            display.line(f"What happened last is only in {run_dir}: {error}")
        raise
    _end(thread, ended)
    mirror.push(*_EVENTS, _LOGS)


def _end(thread: threading.Thread, ended: threading.Event) -> None:
    ended.set()
    thread.join()


def _follow(mirror: Mirror, ended: threading.Event, display: Display) -> None:
    told = False
    rounds = 0
    while not ended.wait(_EVENTS_S):
        rounds += 1
        try:
            mirror.push(*_EVENTS, *([_LOGS] if rounds % _LOGS_EVERY == 0 else []))
        except StorageError as error:
            if not told:
                display.line(f"Events do not get to {mirror.address}: {error}")
            told = True
