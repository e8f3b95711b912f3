"""What the ranks and the driver tell each other."""

from __future__ import annotations

import time

import pytest
import ray
from ray.exceptions import ActorDiedError

from launcher.driving import mailbox
from launcher.driving.mailbox import MailboxReporter, open_mailbox


@pytest.mark.usefixtures("local_ray")
def test_the_ranks_hear_that_they_are_to_stop():
    box = open_mailbox()
    reporter = MailboxReporter(box)
    assert not reporter.stop_requested()
    ray.get(box.request_stop.remote())
    assert reporter.stop_requested()


@pytest.mark.usefixtures("local_ray")
def test_an_answer_that_is_lost_holds_no_step_up(monkeypatch: pytest.MonkeyPatch):
    class Mute:
        def stop_requested(self) -> bool:
            time.sleep(600)
            return True

    monkeypatch.setattr(mailbox, "_ANSWER_S", 0.1)
    mute = ray.remote(num_cpus=0)(Mute).remote()
    assert not MailboxReporter(mute).stop_requested()
    ray.kill(mute)


@pytest.mark.usefixtures("local_ray")
def test_a_driver_that_is_gone_ends_the_rank():
    box = open_mailbox()
    reporter = MailboxReporter(box)
    assert not reporter.stop_requested()
    ray.kill(box)

    def ask() -> None:
        for _ in range(600):  # what is killed may still answer what comes right after
            reporter.stop_requested()
            time.sleep(0.1)

    with pytest.raises(ActorDiedError):
        ask()
