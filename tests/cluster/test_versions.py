"""What nodes have installed, compared with the driver."""

from __future__ import annotations

import pytest

from cluster import versions
from cluster.versions import SHOAL, Installed, check_versions, compare
from recipes.errors import ClusterError

HAS = {
    SHOAL: "sources 0123456789ab",
    "python": "3.11",
    "ray": "2.60.0",
    "torch": "2.13.0",
    "deepspeed": "0.19.8",
    "transformers": "5.23.0",
    "peft": "0.21.2",
}


def installed(host: str, **other: str) -> Installed:
    return Installed(host=host, versions=HAS | other)


def test_the_same_everywhere():
    assert compare(installed("n1"), [installed("n1"), installed("n2")]) == []


@pytest.mark.parametrize(
    ("other", "is_fatal"),
    [
        ({SHOAL: "sources ba9876543210"}, True),
        ({SHOAL: ""}, True),
        ({"python": "3.12"}, True),
        ({"torch": "2.12.1"}, True),
        ({"deepspeed": "0.19.9"}, True),
        ({"transformers": "5.22.0"}, False),
        ({"peft": ""}, False),
    ],
)
def test_a_difference_names_the_nodes(other: dict[str, str], is_fatal: bool):
    nodes = [installed("n1"), installed("n2", **other), installed("n3", **other)]
    (found,) = compare(installed("n1"), nodes)
    ((name, there),) = other.items()
    assert found.name == name
    assert found.is_fatal is is_fatal
    assert found.text == (
        f"{name}: n2, n3 have {there or 'none'}, but n1, which drives the run, has {HAS[name]}"
    )


def test_the_nodes_of_a_cluster(local_ray: None, monkeypatch: pytest.MonkeyPatch):
    """Nodes tell what they have, whatever the driver has."""
    assert check_versions() == []
    here = versions.look()
    monkeypatch.setattr(versions, "look", lambda: here | {"peft": "0.0.1"})
    (told,) = check_versions()
    assert told.endswith("has 0.0.1") and f"has {here['peft']}, but" in told
    monkeypatch.setattr(versions, "look", lambda: here | {SHOAL: "another"})
    with pytest.raises(ClusterError, match=r"Not all nodes have the same software\. shoal: .*"):
        check_versions()
