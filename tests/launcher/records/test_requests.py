"""What is asked of a run through its folder becomes a signal to its driver."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from launcher import session
from launcher.records import runs
from launcher.records.requests import ask_to_stop, heard
from launcher.signals import noted
from launcher.terminal import open_display
from recipes.errors import StorageError


def wait(seconds: float = 120) -> None:
    time.sleep(seconds)  # ended by the signal's exception


@pytest.mark.parametrize("before", [signal.default_int_handler, signal.SIG_IGN])
def test_a_wish_to_stop_is_a_persons_interruption(
    tmp_path: Path, before: Any, request: pytest.FixtureRequest
):
    """Also where the shell has let Ctrl-C be ignored, as for `shoal run … &` in a script."""
    old = signal.signal(signal.SIGINT, before)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, old))
    ask_to_stop(tmp_path)
    with pytest.raises(KeyboardInterrupt), heard(tmp_path):
        wait()
    assert not (tmp_path / ".stop").exists()


def test_a_schedulers_wish_is_told_apart(tmp_path: Path):
    with noted() as wishes, heard(tmp_path):
        (tmp_path / ".stop").write_text("preempted\n")
        end = time.monotonic() + 120
        while not wishes.count and time.monotonic() < end:
            time.sleep(0.05)
    assert (wishes.count, wishes.preempted) == (1, True)


def test_what_was_asked_of_an_earlier_driver_is_forgotten(tmp_path: Path):
    ask_to_stop(tmp_path)
    with session._driven(tmp_path, open_display()), heard(tmp_path):
        wait(1.2)


def test_who_may_not_drive_a_run_takes_nothing_back(tmp_path: Path):
    """Of what was asked of its driver, a second `shoal resume` would otherwise."""
    with runs.locked(tmp_path):
        ask_to_stop(tmp_path)
        with pytest.raises(StorageError), session._driven(tmp_path, open_display()):
            pass
        assert (tmp_path / ".stop").exists()
