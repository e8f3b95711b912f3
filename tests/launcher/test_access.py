"""What opens the object storage reaches the ranks, and is shown nowhere."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.drive import _Access

SECRET = "very-secret"


def access(address: str | None) -> _Access:
    job: Any = SimpleNamespace(address=address)
    return _Access.of(job)


def test_only_what_is_needed_is_taken_along(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("OTHER_SECRET", SECRET)
    taken = pickle.loads(pickle.dumps(access("s3://bucket/tiny"))).environment
    assert taken["AWS_SECRET_ACCESS_KEY"] == SECRET
    assert all(name.startswith("AWS_") for name in taken)
    assert access(None).environment == {}


def test_it_does_not_show(monkeypatch: pytest.MonkeyPatch):
    """Ray Train notes the configuration of a run as text."""
    from ray.train.v2._internal.state.schema import _to_json_serializable_value

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    found = access("s3://bucket/tiny")
    assert SECRET not in repr(found) + str(_to_json_serializable_value({"access": found}))
