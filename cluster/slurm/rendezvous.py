"""How the nodes of a job find each other: the first listens, the others come and stay connected.

A connection tells three things without any shared file: who has come, by which address the others
reach the first node, and that the job is over, when it ends. Both sides prove that they know the
job's token (the challenge of `multiprocessing.connection`).
"""

from __future__ import annotations

import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import (
    Connection,
    Listener,
    answer_challenge,
    deliver_challenge,
    wait,
)

from recipes.errors import ClusterError

# Below the ports that Linux gives to outgoing connections, some for each job: others may be taken.
_FIRST_PORT, _PORTS_PER_JOB, _JOBS = 16000, 8, 2000
_ASK_AGAIN_S = 0.5
_JOIN_S = 5.0
# How long a guest that has connected, and the first node, may take for each word.
_GUEST_S = _HOST_S = 10
_CONNECT_S = 5.0
_OPEN_FILES = 65536
_OVER = ""
# A node that has lost its power says nothing; half a minute of silence is its end, also when
# something was sent to it, which would be sent again for a quarter of an hour.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}
_BROKEN = (OSError, EOFError, AuthenticationError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Where and by what the nodes of one start of a job meet."""

    job: int
    host: str
    """Name of the first node, which all others can resolve."""
    token: bytes = field(repr=False)

    def ports(self) -> Iterator[int]:
        first = _FIRST_PORT + _PORTS_PER_JOB * (self.job % _JOBS)
        return iter(range(first, first + _PORTS_PER_JOB))


class MeetingOver(Exception):
    """The first node has sent all home."""


class HostLost(Exception):
    """The first node, or its process, is gone without a word."""


class Host:
    """The first node's side. Raises `ClusterError` when none of the job's ports is free."""

    def __init__(self, meeting: Meeting) -> None:
        _allow_open_files()
        self._token = meeting.token
        self._listener = _listen(meeting)
        self._guests: dict[str, Connection] = {}
        self._gone: set[str] = set()
        self._message: str | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._welcome, daemon=True, name="rendezvous")
        self._thread.start()

    def guests(self) -> dict[str, str]:
        """Names of the nodes that are here, and the address of this node that each has reached."""
        with self._lock:
            self._part()
            return {name: _own_address(guest) for name, guest in self._guests.items()}

    def gone(self) -> frozenset[str]:
        """Names of the nodes that have come and are here no more."""
        with self._lock:
            self._part()
            return frozenset(self._gone)

    def _part(self) -> None:
        """Guests say nothing once they have come: all that can be read of one is its end."""
        ended = wait(list(self._guests.values()), timeout=0)
        for name, guest in list(self._guests.items()):
            if guest in ended:
                self._gone.add(name)
                self._guests.pop(name).close()

    def tell(self, message: str) -> None:
        """Tell all, and whoever comes later."""
        with self._lock:
            self._message = message
            for guest in self._guests.values():
                with suppress(OSError):  # one that has gone is for Ray to notice
                    guest.send(message)

    def close(self) -> None:
        """Send all home."""
        self.tell(_OVER)
        self._closed = True
        # Closing alone would leave the thread, and with it the port, waiting for one more.
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port())):
            pass
        self._thread.join(_JOIN_S)
        self._listener.close()
        with self._lock:
            for guest in self._guests.values():
                guest.close()

    def _port(self) -> int:
        return int(self._listener.address[1])

    def _welcome(self) -> None:
        while not self._closed:
            try:
                stranger = self._listener.accept()
            except _BROKEN:
                continue
            # Each in a thread of its own: one that says nothing keeps no other waiting.
            threading.Thread(target=self._admit, args=(stranger,), daemon=True).start()

    def _admit(self, guest: Connection) -> None:
        try:
            _expect_within(guest, _GUEST_S)
            deliver_challenge(guest, self._token)
            answer_challenge(guest, self._token)
            name = guest.recv()
            _keep_alive(guest)
        except _BROKEN:
            guest.close()  # not one of ours
            return
        with self._lock:
            self._guests[name] = guest
            self._gone.discard(name)
            if self._message is not None:
                with suppress(OSError):
                    guest.send(self._message)
            if self._closed:
                guest.close()


class Guest:
    """Another node's side, from the moment it has found the first node.

    Raises `ClusterError` when it does not within `timeout_s`.
    """

    def __init__(self, meeting: Meeting, node: str, timeout_s: float) -> None:
        self._host = _reach(meeting, timeout_s)
        _keep_alive(self._host)
        self._host.send(node)

    def own_address(self) -> str:
        """The address of this node that leads to the first."""
        return _own_address(self._host)

    def hear(self, timeout_s: float) -> str | None:
        """The next message, or None when there is none in time.

        Raises `MeetingOver` at the end, and `HostLost` when the first node is gone without a word.
        """
        try:
            message = str(self._host.recv()) if self._host.poll(timeout_s) else None
        except (OSError, EOFError) as error:
            raise HostLost from error
        if message == _OVER:
            raise MeetingOver
        return message

    def close(self) -> None:
        self._host.close()


def _allow_open_files() -> None:
    """Each guest is an open file, and many systems give a process 1,024 unless it asks for more."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _listen(meeting: Meeting) -> Listener:
    for port in meeting.ports():
        with suppress(OSError):
            return Listener(("0.0.0.0", port), backlog=1024)
    ports = list(meeting.ports())
    raise ClusterError(
        f"{meeting.host}: ports {ports[0]} to {ports[-1]}, by which the nodes of job {meeting.job} "
        "meet, are all taken"
    )


def _reach(meeting: Meeting, timeout_s: float) -> Connection:
    end = time.monotonic() + timeout_s
    while True:
        why = ""
        for port in meeting.ports():
            try:
                return _knock(meeting, port)
            except _BROKEN as error:
                why = str(error)
        if time.monotonic() > end:
            raise ClusterError(
                f"{meeting.host}: the first node cannot be reached for {timeout_s:g} s: {why}. "
                "Check that its name leads to it, and that no firewall is between the nodes"
            )
        time.sleep(_ASK_AGAIN_S)


def _knock(meeting: Meeting, port: int) -> Connection:
    """The first node at one of the job's ports, which another program may have taken: most wait
    until they are spoken to, and that is not waited for."""
    with socket.create_connection((meeting.host, port), timeout=_CONNECT_S) as found:
        found.settimeout(None)
        host = Connection(found.detach())
    try:
        _expect_within(host, _HOST_S)
        answer_challenge(host, meeting.token)
        deliver_challenge(host, meeting.token)
        _expect_within(host, 0)
    except BaseException:
        host.close()
        raise
    return host


def _expect_within(connection: Connection, seconds: int) -> None:
    """From now on reading from it fails after so long; with 0 never."""
    with _socket_of(connection) as same:
        timeval = struct.pack("ll", seconds, 0)
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)


def _keep_alive(connection: Connection) -> None:
    """From now on the other's silence is its end."""
    with _socket_of(connection) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            same.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _own_address(connection: Connection) -> str:
    with _socket_of(connection) as same:
        return str(same.getsockname()[0])


def _socket_of(connection: Connection) -> socket.socket:
    """The connection once more, to be closed by whoever asks."""
    return socket.socket(fileno=os.dup(connection.fileno()))
