"""What others ask of a run through its folder: to stop.

A file reaches a driver on any machine that shares the folder, where a signal does not. It becomes
the signal that a person or a scheduler would have sent.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.job_words import BY_PERSON, PREEMPTED, STOP_FILE
from recipes.errors import StorageError

_LOOK_S = 0.5
_SIGNALS = {PREEMPTED: signal.SIGUSR1, BY_PERSON: signal.SIGINT}


def ask_to_stop(run_dir: Path, word: str = BY_PERSON) -> None:
    """Ask whoever drives a run to save and stop; `word` is who wants it. Raises `StorageError`."""
    try:
        (run_dir / STOP_FILE).write_text(f"{word}\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{run_dir / STOP_FILE}: cannot be written: {error}") from error


def forget(run_dir: Path) -> None:
    """Take back what was asked of an earlier driver."""
    (run_dir / STOP_FILE).unlink(missing_ok=True)


@contextmanager
def heard(run_dir: Path) -> Iterator[None]:
    """Meanwhile this process gets a signal for what is asked of the run."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As a shell leaves it for what it starts with `&`; what is asked for by name is meant.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    ended = threading.Event()
    thread = threading.Thread(target=_listen, args=(run_dir / STOP_FILE, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _listen(file: Path, ended: threading.Event) -> None:
    while not ended.wait(_LOOK_S):
        with suppress(OSError):
            word = file.read_text(encoding="utf-8").strip()
            if word in _SIGNALS:  # else it is only half written
                file.unlink()
                os.kill(os.getpid(), _SIGNALS[word])
