"""Looking at runs that go on meanwhile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cluster.job import JobState
from launcher.records import jobs, looking, runs


def test_a_character_that_is_only_half_written_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(looking, "_POLL_S", 0)
    monkeypatch.setattr(jobs, "state_of", lambda _: JobState(phase="running"))
    log = tmp_path / "logs" / "rank_000.log"
    log.parent.mkdir()
    log.write_bytes("损失 loss".encode()[:5])
    told = looking.read_log(tmp_path, rank=0, follow=True)
    first = next(told)
    monkeypatch.setattr(jobs, "state_of", lambda _: JobState(phase="ended"))
    log.write_bytes("损失 loss\n".encode())
    assert first + "".join(told) == "损失 loss\n"


def test_a_run_that_comes_to_nothing_meanwhile_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One that fails before its first step removes its folder."""
    for name in ("goes", "stays"):
        runs.create(tmp_path, name, tmp_path)
        (tmp_path / name / "recipe.yaml").write_text("task: causal_lm\n")
        with runs.locked(tmp_path / name):
            pass
    names = runs.names

    def names_late(storage: Path) -> list[str]:
        found = names(storage)
        shutil.rmtree(tmp_path / "goes")
        return found

    monkeypatch.setattr(runs, "names", names_late)
    assert [one.name for one in looking.see_all(tmp_path)] == ["stays"]
    assert not (tmp_path / "goes").exists()


def test_a_run_of_another_person_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> int:
        raise PermissionError("another's")

    with runs.locked(tmp_path):
        monkeypatch.setattr(os, "open", refuse)  # as files are opened that are to be locked
        assert jobs.state_of(tmp_path).phase == "running"
    assert jobs.state_of(tmp_path).phase == "ended"
    assert jobs.state_of(tmp_path / "absent").phase == "ended"
