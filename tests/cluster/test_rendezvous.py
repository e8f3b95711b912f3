"""Nodes of a job that meet, on this machine's loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.slurm import rendezvous
from cluster.slurm.rendezvous import Guest, Host, HostLost, Meeting, MeetingOver
from recipes.errors import ClusterError

ROOT = Path(__file__).parent.parent.parent
MEETING = Meeting(job=os.getpid(), host="127.0.0.1", token=b"secret")


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_who_comes_is_known_and_told():
    host = Host(MEETING)
    try:
        early = Guest(MEETING, "n2", 120)
        wait_until(lambda: host.guests() == {"n2": "127.0.0.1"})
        assert early.own_address() == "127.0.0.1"
        assert early.hear(0) is None
        host.tell("head")
        late = Guest(MEETING, "n3", 120)
        assert [early.hear(120), late.hear(120)] == ["head", "head"]
    finally:
        host.close()
    for guest in (early, late):
        with pytest.raises(MeetingOver):
            guest.hear(120)
        guest.close()


def test_a_guest_that_has_gone_is_no_guest():
    host = Host(MEETING)
    try:
        stays, goes = Guest(MEETING, "n2", 120), Guest(MEETING, "n3", 120)
        wait_until(lambda: set(host.guests()) == {"n2", "n3"})
        assert host.gone() == set()
        goes.close()
        wait_until(lambda: host.gone() == {"n3"})
        assert set(host.guests()) == {"n2"}
        host.tell("head")
        assert stays.hear(120) == "head"
        back = Guest(MEETING, "n3", 120)
        wait_until(lambda: set(host.guests()) == {"n2", "n3"})
        assert host.gone() == set()
        assert back.hear(120) == "head"
    finally:
        host.close()
    for guest in (stays, back):
        guest.close()


def test_a_first_node_that_dies_has_not_sent_anybody_home():
    program = (
        "import sys, time; from cluster.slurm.rendezvous import Host, Meeting;"
        f"host = Host(Meeting(job={MEETING.job}, host='', token=b'secret')); print(flush=True);"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline()
    guest = Guest(MEETING, "n2", 120)
    process.kill()
    process.wait()
    process.stdout.close()
    with pytest.raises(HostLost):
        guest.hear(120)
    guest.close()


def test_a_stranger_is_not_let_in():
    host = Host(MEETING)
    try:
        stranger = Meeting(job=MEETING.job, host=MEETING.host, token=b"guess")
        with pytest.raises(ClusterError, match="the first node cannot be reached for 1 s"):
            Guest(stranger, "n9", 1)
        guest = Guest(MEETING, "n2", 120)  # and does not keep others out
        wait_until(lambda: set(host.guests()) == {"n2"})
        guest.close()
    finally:
        host.close()


def test_two_jobs_whose_ports_are_the_same_find_each_their_own():
    other = Meeting(job=MEETING.job, host=MEETING.host, token=b"another")
    hosts = [Host(MEETING), Host(other)]
    try:
        guests = [Guest(MEETING, "mine", 120), Guest(other, "theirs", 120)]
        wait_until(lambda: [set(h.guests()) for h in hosts] == [{"mine"}, {"theirs"}])
        for guest in guests:
            guest.close()
    finally:
        for host in hosts:
            with suppress(OSError):
                host.close()


def test_one_that_says_nothing_keeps_nobody_out():
    """As a port scanner, or a node that loses its power in the middle."""
    host = Host(MEETING)
    try:
        with socket.create_connection(("127.0.0.1", next(MEETING.ports()))):
            guest = Guest(MEETING, "n2", 120)
            wait_until(lambda: set(host.guests()) == {"n2"})
            guest.close()
    finally:
        host.close()


def test_a_port_that_another_program_has_is_passed_over(monkeypatch: pytest.MonkeyPatch):
    """One that waits until it is spoken to, as most do."""
    monkeypatch.setattr(rendezvous, "_HOST_S", 1)
    with socket.create_server(("", next(MEETING.ports()))):
        host = Host(MEETING)
        try:
            guest = Guest(MEETING, "n2", 120)
            wait_until(lambda: set(host.guests()) == {"n2"})
            assert guest.hear(0) is None
            host.tell("head")
            assert guest.hear(120) == "head"
            guest.close()
        finally:
            host.close()
