"""What the outside world asks of a run: a person's Ctrl-C, or a scheduler's wish to have the
machine back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_FROM_SCHEDULERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Preempted(KeyboardInterrupt):
    """A scheduler wants the machine back; raised where there is nothing to save."""


@dataclass(slots=True)
class Wishes:
    """Signals heard so far."""

    count: int = 0
    preempted: bool = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.preempted = number in _FROM_SCHEDULERS
        # Schedulers send a signal to every process of a step, and some send it again.
        if self.count > 1 and not self.preempted:
            self.interrupt()

    def interrupt(self) -> None:
        """Raise what was wished, where there is nothing to wait for."""
        raise Preempted if self.preempted else KeyboardInterrupt


@contextmanager
def noted() -> Iterator[Wishes]:
    """Signals are noted, not raised, so that no event is lost; a second Ctrl-C is raised."""
    wishes = Wishes()
    if threading.current_thread() is not threading.main_thread():
        yield wishes  # only the main thread hears signals
        return
    before = {
        number: signal.signal(number, wishes.handle)
        for number in (signal.SIGINT, *_FROM_SCHEDULERS)
    }
    try:
        yield wishes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_from_schedulers() -> None:
    """Until a run notes them, a scheduler's signals end what is under way as Ctrl-C does."""
    for number in _FROM_SCHEDULERS:
        signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Preempted
