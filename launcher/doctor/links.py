"""The network between each two nodes: who is measured with whom when, and which are slow. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from launcher.doctor.findings import Finding, error, warning
from recipes.listing import listed

# Of the median of all pairs. Nodes under different switches differ by less.
_SLOW = 0.5
_LATE = 5.0
# Below this (s) a round trip is noise of the kernels, not of the network.
_LATE_S = 0.001
# A median of fewer says nothing.
_LEAST_PAIRS = 3

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The way between two nodes. None is what could not be measured."""

    nodes: Pair
    latency_s: float | None = None
    """Round trip of one byte by TCP, the slower direction; its median."""
    bytes_per_s: float | None = None
    """Of an all-reduce of the two: bytes of the tensor by the time it took."""
    error: str = ""
    """Why something could not be measured."""


def rounds(nodes: Sequence[str]) -> list[list[Pair]]:
    """Every pair once, in as few rounds as can be, in each of which a node is in one pair at most.

    The circle method of tournaments: n - 1 rounds of n nodes, n when that is odd.
    """
    circle: list[str | None] = [*nodes, None] if len(nodes) % 2 else [*nodes]
    half = len(circle) // 2
    made = []
    for _ in range(len(circle) - 1):
        pairs = zip(circle[:half], reversed(circle[half:]), strict=True)
        made.append([(a, b) for a, b in pairs if a is not None and b is not None])
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return made


def check_links(links: Sequence[Link]) -> Iterator[Finding]:
    """Pairs that do not reach each other, and those that are slow against the others. Where one
    node, or a few, account for them, they are named in the place of the pairs."""
    nodes = {node for link in links for node in link.nodes}
    broken = {link.nodes: link.error for link in links if link.error}
    yield from _blamed(
        broken,
        len(nodes),
        lambda node, others: error(
            node,
            f"does not reach {listed(others)}, or is not reached: {_first(broken, node)}",
            "Look at its network and firewall: Ray and the workers use any port above 1024",
        ),
        lambda pair: error(
            None,
            f"{pair[0]} and {pair[1]} do not reach each other: {broken[pair]}",
            "Look at what is between them, or leave one of them out",
        ),
    )
    slow = _slow(links)
    yield from _blamed(
        slow,
        len(nodes),
        lambda node, others: Finding(
            node=node,
            what=f"is slow with {listed(others)}: {_first(slow, node)}",
            remedy="Look at its network card, cable and cluster.interface, or leave it out",
            severity="warning",
            leave_out=True,
        ),
        lambda pair: warning(
            None,
            f"{pair[0]} and {pair[1]} are slow together: {slow[pair]}",
            "Look at what is between them, or leave one of them out",
        ),
    )


def _slow(links: Sequence[Link]) -> dict[Pair, str]:
    """What is slow of each slow pair."""
    found: dict[Pair, list[str]] = {}
    speeds = {link.nodes: link.bytes_per_s for link in links if link.bytes_per_s is not None}
    if len(speeds) >= _LEAST_PAIRS:
        middle = statistics.median(speeds.values())
        for pair, speed in speeds.items():
            if speed < _SLOW * middle:
                text = f"all-reduce of {speed_text(speed)}, the median is {speed_text(middle)}"
                found.setdefault(pair, []).append(text)
    times = {link.nodes: link.latency_s for link in links if link.latency_s is not None}
    if len(times) >= _LEAST_PAIRS:
        middle = statistics.median(times.values())
        for pair, latency in times.items():
            if latency > max(_LATE * middle, _LATE_S):
                text = f"round trip of {time_text(latency)}, the median is {time_text(middle)}"
                found.setdefault(pair, []).append(text)
    return {pair: "; ".join(texts) for pair, texts in found.items()}


def _blamed(
    pairs: Mapping[Pair, str],
    num_nodes: int,
    of_node: Callable[[str, list[str]], Finding],
    of_pair: Callable[[Pair], Finding],
) -> Iterator[Finding]:
    left = list(pairs)
    while named := _worst(left, num_nodes):
        for node in sorted(named):
            yield of_node(node, sorted(_other(pair, node) for pair in left if node in pair))
        left = [pair for pair in left if not named & set(pair)]
    for pair in left:
        yield of_pair(pair)


def _worst(pairs: Sequence[Pair], num_nodes: int) -> set[str]:
    """The node in most of these pairs, if that is several; or a few with as many each, if that is
    more than half of all their pairs: one pair of two such nodes says nothing about either."""
    counts = Counter(node for pair in pairs for node in pair)
    most = max(counts.values(), default=0)
    worst = {node for node, count in counts.items() if count == most}
    if most < 2:
        return set()
    is_few = 2 * len(worst) < num_nodes and 2 * most > num_nodes - 1
    return worst if len(worst) == 1 or is_few else set()


def _first(pairs: Mapping[Pair, str], node: str) -> str:
    return next(text for pair, text in pairs.items() if node in pair)


def _other(pair: Pair, node: str) -> str:
    return pair[1] if pair[0] == node else pair[0]


def speed_text(bytes_per_s: float) -> str:
    """`12.4 GB/s`, `118 MB/s`."""
    if bytes_per_s >= 1e9:
        return f"{bytes_per_s / 1e9:.1f} GB/s"
    return f"{bytes_per_s / 1e6:.3g} MB/s"


def time_text(seconds: float) -> str:
    """`0.12 ms`."""
    return f"{seconds * 1e3:.2g} ms"
