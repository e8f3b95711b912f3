"""Publishing checkpoints while training goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Saver:
    """Hands the writing to a thread; at most one checkpoint is under way.

    An error of the thread is raised by the next call.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saver")
        self._pending: Future[None] | None = None
        self._last_begin = time.monotonic()

    def save(self, write: Callable[[], None]) -> None:
        """Begin to write; waits first for the checkpoint before."""
        self.finish()
        self._last_begin = time.monotonic()
        self._pending = self._thread.submit(write)

    def check(self) -> None:
        """Raise the error of a checkpoint that could not be written, without waiting for one."""
        if self._pending is not None and self._pending.done():
            self.finish()

    def finish(self) -> None:
        """Wait until nothing is under way."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def minutes_since_last(self) -> float:
        """Since the last save began, or since this rank did."""
        return (time.monotonic() - self._last_begin) / 60
