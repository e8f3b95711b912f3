"""Variables of the shell reach the ranks, and are shown nowhere."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.access import Access
from recipes.cluster import Cluster
from recipes.errors import RecipeError

SECRET = "very-secret"


def access(address: str | None, *names: str) -> Access:
    recipe: Any = SimpleNamespace(cluster=Cluster(env=list(names)))
    return Access.of(recipe, [address])


def test_only_what_is_needed_is_taken_along(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("OTHER_SECRET", SECRET)
    taken = pickle.loads(pickle.dumps(access("s3://bucket/tiny"))).variables
    assert taken["AWS_SECRET_ACCESS_KEY"] == SECRET
    assert all(name.startswith("AWS_") for name in taken)
    assert access(None).variables == {}
    assert access(None, "OTHER_SECRET").variables == {"OTHER_SECRET": SECRET}


def test_what_is_named_and_not_set_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(RecipeError, match="NOT_SET: not set in this shell"):
        access(None, "NOT_SET")


def test_it_does_not_show(monkeypatch: pytest.MonkeyPatch):
    """Ray Train notes the configuration of a run as text."""
    from ray.train.v2._internal.state.schema import _to_json_serializable_value

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("OTHER_SECRET", SECRET)
    found = access("s3://bucket/tiny", "OTHER_SECRET")
    assert SECRET not in repr(found) + str(_to_json_serializable_value({"access": found}))
