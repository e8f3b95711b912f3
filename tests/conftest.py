from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# No test reaches for a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(autouse=True)
def _gpu_or_skip(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray with two CPUs for all tests of the session."""
    from cluster.ray_cluster import connected
    from recipes.cluster import Cluster

    with connected(Cluster(), num_cpus=2):
        yield


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with its tokenizer, which knows chats."""
    from support import tiny

    return tiny.make_llama(tmp_path_factory.mktemp("models") / "llama")
