"""Who is measured with whom, and which ways are slow. Nothing is measured."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from launcher.doctor import network
from launcher.doctor.links import Link, check_links, rounds, speed_text, time_text

NODES = ["a", "b", "c", "d", "e", "f"]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 33])
def test_every_pair_once_and_no_node_twice_in_a_round(count: int):
    nodes = [f"n{number}" for number in range(count)]
    made = rounds(nodes)
    assert len(made) == (count - 1 if count % 2 == 0 else count)
    for pairs in made:
        assert len({node for pair in pairs for node in pair}) == 2 * len(pairs)
    met = [frozenset(pair) for pairs in made for pair in pairs]
    assert len(met) == len(set(met)) == count * (count - 1) // 2


@pytest.mark.parametrize("count", [0, 1])
def test_nobody_to_meet(count: int):
    assert [pair for pairs in rounds(["a"][:count]) for pair in pairs] == []


def links(
    nodes: list[str] = NODES,
    *,
    speeds: dict[str, float | None] | None = None,
    latencies: dict[str, float] | None = None,
    errors: dict[str, str] | None = None,
) -> list[Link]:
    """Of all pairs, named like `ab`: 1 GB/s and 0.1 ms where nothing else is said."""
    return [
        Link(
            nodes=(a, b),
            latency_s=(latencies or {}).get(a + b, 1e-4),
            bytes_per_s=(speeds or {}).get(a + b, 1e9),
            error=(errors or {}).get(a + b, ""),
        )
        for a, b in itertools.combinations(nodes, 2)
    ]


def test_equal_links():
    assert list(check_links(links())) == []
    assert list(check_links([])) == []


def test_the_node_that_is_slow_with_all():
    slow = {"ac": 2e8, "bc": 3e8, "cd": 4.9e8, "ce": 2e8, "cf": 2e8}
    (one,) = check_links(links(speeds=dict(slow)))
    assert (one.node, one.severity, one.leave_out) == ("c", "warning", True)
    assert one.what == (
        "is slow with a, b, d, e, f: all-reduce of 200 MB/s, the median is 1.0 GB/s"
    )


def test_half_of_the_median_is_not_slow_yet():
    assert list(check_links(links(speeds={"ac": 5e8}))) == []


def test_a_single_slow_pair_is_nobodys_fault():
    (one,) = check_links(links(speeds={"bd": 1e8}))
    assert (one.node, one.leave_out) == (None, False)
    assert one.what.startswith("b and d are slow together: all-reduce of 100 MB/s")


def test_two_slow_nodes_are_both_named():
    """b and e are slow with all, and with each other too."""
    nodes = [*NODES, "g", "h"]
    pairs = [a + b for a, b in itertools.combinations(nodes, 2)]
    slow = {pair: 1e8 for pair in pairs if {"b", "e"} & set(pair)}
    findings = list(check_links(links(nodes, speeds=dict(slow))))
    assert [one.node for one in findings] == ["b", "e"]


def test_all_that_reach_nobody_are_no_few():
    broken = dict.fromkeys(("ab", "ac", "bc"), "timed out")
    assert [one.node for one in check_links(links(["a", "b", "c"], errors=broken))] == [None] * 3


def test_two_pairs_that_share_no_node():
    findings = list(check_links(links(speeds={"ab": 1e8, "cd": 1e8})))
    assert [one.node for one in findings] == [None, None]


def test_a_round_trip_is_late_against_the_others_and_only_if_it_is_long():
    late = links(latencies={"ac": 0.02, "bc": 0.02, "cd": 0.02})
    (one,) = check_links(late)
    assert one.node == "c"
    assert "round trip of 20 ms, the median is 0.1 ms" in one.what
    assert list(check_links(links(latencies={"ac": 9e-4, "bc": 9e-4}))) == []


def test_of_two_nodes_none_is_slow():
    assert list(check_links(links(["a", "b"], speeds={"ab": 1.0}))) == []


def test_a_node_that_is_not_reached():
    broken = dict.fromkeys(("ab", "bc", "bd", "be", "bf"), "timed out")
    (one,) = check_links(links(errors=broken))
    assert (one.node, one.severity, one.leave_out) == ("b", "error", True)
    assert "does not reach a, c, d, e, f, or is not reached: timed out" in one.what


def test_a_pair_that_does_not_meet():
    (one,) = check_links(links(["a", "b"], speeds={"ab": None}, errors={"ab": "refused"}))
    assert (one.node, one.severity) == (None, "error")
    assert one.what == "a and b do not reach each other: refused"


def test_texts():
    assert speed_text(12.44e9) == "12.4 GB/s"
    assert speed_text(118.4e6) == "118 MB/s"
    assert time_text(0.000123) == "0.12 ms"


def test_nobody_waits_for_another_that_imports_torch(monkeypatch: pytest.MonkeyPatch):
    """That may take longer than a pair has to meet."""
    said: list[str] = []

    class Peer:
        """Notes what it is asked."""

        def __getattr__(self, name: str) -> SimpleNamespace:
            return SimpleNamespace(remote=lambda *_, **__: said.append(name) or 1.0)

    made = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=Peer))
    monkeypatch.setattr(network, "Peer", made)
    monkeypatch.setattr(network, "on", lambda node: node)
    monkeypatch.setattr(network, "answers", lambda pending, timeout_s: dict(pending))
    speeds = network._speeds(["a", "b", "c"], gpu=False, progress=lambda *_: None)
    assert set(speeds.values()) == {1.0}
    assert said[:4] == ["make_ready"] * 3 + ["open"]
