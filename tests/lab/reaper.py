"""The first process of a process namespace: it waits for orphans, and its end is the end of all."""

from __future__ import annotations

import os
import sys
import threading
import time


def reap_until_left_alone() -> None:
    """Collect what dies; end when whoever holds the other end of stdin is gone.

    The kernel kills everything in the namespace with its first process, so nothing of it can
    outlive a pytest that was killed.
    """
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.2)


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    reap_until_left_alone()
