"""What looks at a node from inside: an actor of Ray on each."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import ray

from launcher.doctor.facts import NodeFacts, collect

_CONNECT_S = 5.0
_ROUND_TRIPS = 50

Address = tuple[str, int]


@ray.remote(num_cpus=0, max_restarts=0)
class Probe:
    """Looks at its node, and measures the way to others."""

    def collect(self, folders: Mapping[str, Path]) -> NodeFacts:
        return collect(folders)

    def clock(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def listen(self) -> Address:
        """Where this node sends back every byte it gets, from now on."""
        listener = socket.create_server((ray.util.get_node_ip_address(), 0))
        threading.Thread(target=_echo, args=(listener,), daemon=True).start()
        host, port = listener.getsockname()[:2]
        return host, port

    def round_trip_s(self, address: Address) -> float | str:
        """The median time of a byte to another node and back; or why there is none."""
        try:
            with socket.create_connection(address, timeout=_CONNECT_S) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return statistics.median(_round_trip_s(connection) for _ in range(_ROUND_TRIPS))
        except OSError as error:
            return f"{address[0]} port {address[1]}: {error.strerror or error}"


def _round_trip_s(connection: socket.socket) -> float:
    begin = time.perf_counter()
    connection.sendall(b"?")
    if not connection.recv(1):
        raise ConnectionResetError("the other node has hung up")
    return time.perf_counter() - begin


def _echo(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        connection.settimeout(_CONNECT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, suppress(OSError):
            while byte := connection.recv(1):
                connection.sendall(byte)
