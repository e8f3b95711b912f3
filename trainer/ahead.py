"""Reading ahead: micro-batches are put together by a thread while the model computes others."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from trainer.batch import Batch, collate
from trainer.order import Order
from trainer.split import Split

_AHEAD = 8
"""Micro-batches at most that wait to be computed."""
_LOOK_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One of this rank's micro-batches of a step, on the CPU."""

    number: int
    """In its step. From `Order.num_micro_batches` on there is none, and another one is read."""
    batch: Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """What one rank computes, in the global order: a function of rank and workers alone."""

    split: Split
    order: Order
    rank: int
    num_workers: int
    pad_token_id: int

    def turns(self, first: int, num_steps: int) -> Iterator[Turn]:
        """Micro-batches of the steps from `first` to `num_steps`, `accumulation` of them each."""
        for step in range(first, num_steps):
            for turn in range(self.order.accumulation(self.num_workers)):
                number = turn * self.num_workers + self.rank
                weighs = number < self.order.num_micro_batches
                rows = self.order.micro_batch(step, number if weighs else 0)
                batch = collate([self.split[row] for row in rows], self.pad_token_id)
                yield Turn(number=number, batch=batch)


class Ahead:
    """The same items in the same order, each made before it is asked for.

    A disk or a network file system answers within milliseconds, and the mapped file makes whoever
    reads it wait: the thread waits, and the rank computes meanwhile. Use as a context: the thread
    ends with it.
    """

    def __init__(self, items: Iterator[Turn]) -> None:
        self._items = items
        self._ready: queue.Queue[Turn | BaseException] = queue.Queue(maxsize=_AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="reading ahead", daemon=True)

    def __enter__(self) -> Ahead:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    @property
    def is_running(self) -> bool:
        """Whether the thread is there."""
        return self._thread.is_alive()

    def next(self) -> Turn:
        """The next item. Raises what making it raised."""
        found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def _fill(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:  # it is raised where the item is asked for
            self._put(error)

    def _put(self, item: Turn | BaseException) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=_LOOK_AGAIN_S)
            except queue.Full:
                continue
            return True
        return False
