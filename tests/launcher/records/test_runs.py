"""Run folders."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from launcher.records import runs
from recipes.errors import CheckpointError, StorageError


def make(storage: Path, name: str) -> Path:
    folder = runs.create(storage, name, storage)
    (folder / "recipe.yaml").write_text("")
    return folder


def test_names_count_on(tmp_path: Path):
    assert [make(tmp_path, "a").name for _ in range(11)][-2:] == ["a-10", "a-11"]
    newest = runs.latest(tmp_path, "a", tmp_path)
    assert newest is not None
    assert newest.name == "a-11"
    assert runs.latest(tmp_path, "b", tmp_path) is None
    # A folder that holds no run is none.
    runs.create(tmp_path, "a", tmp_path)
    assert runs.latest(tmp_path, "a", tmp_path) == newest


def test_finding_by_name_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    first, second = (make(tmp_path / "runs", "quick") for _ in range(2))
    assert runs.find("quick") == second
    assert runs.find(str(first)) == first
    assert runs.find("quick-2") == second
    with pytest.raises(CheckpointError, match=r"quik: there is no such run. Did you mean quick\?"):
        runs.find("quik")
    (tmp_path / "nowhere").mkdir()
    monkeypatch.chdir(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"Runs in .*: none"):
        runs.find("x")


def test_a_run_is_called_as_it_is_found_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    first, second = make(tmp_path / "runs", "quick"), make(tmp_path / "runs", "quick")
    elsewhere = make(tmp_path / "other runs", "quick")
    # By the name alone the newest would be found.
    assert [runs.called(run) for run in (second, first, elsewhere)] == [
        "quick-2",
        str(first),
        f"'{elsewhere}'",
    ]
    monkeypatch.chdir("/")
    assert runs.called(second) == str(second)


def test_nobody_drives_a_run_twice(tmp_path: Path):
    with runs.locked(tmp_path):
        with (
            pytest.raises(StorageError, match="another shoal is running it"),
            runs.locked(tmp_path),
        ):
            pass
        asked: list[bool] = []
        with (
            pytest.raises(StorageError, match="another shoal is running it"),
            runs.locked(tmp_path, patience_s=0.2, ask=lambda: asked.append(True)),
        ):
            pass
        assert asked == [True]
    with runs.locked(tmp_path, ask=lambda: asked.append(False)):
        assert asked == [True]  # nobody is there to be asked


def test_who_only_looks_keeps_nobody_from_driving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`shoal ps` holds the lock of each run for a moment."""
    monkeypatch.setattr(runs, "_LOOK_S", 60)
    look = FileLock(tmp_path / ".lock", thread_local=False)
    look.acquire()
    over = threading.Timer(0.2, look.release)
    over.start()
    with runs.locked(tmp_path, ask=lambda: pytest.fail("nobody drives it")):
        over.join()


def test_a_run_is_taken_over_from_whoever_goes_when_asked(tmp_path: Path):
    other = runs.locked(tmp_path)
    other.__enter__()
    with runs.locked(tmp_path, patience_s=60, ask=lambda: other.__exit__(None, None, None)):
        pass


def test_a_storage_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"storage.path = .*/file/runs: cannot be written"):
        runs.check_writable(tmp_path / "file" / "runs")
    with pytest.raises(StorageError, match="cannot be made"):
        runs.create(tmp_path / "file", "a", tmp_path)
    with pytest.raises(StorageError, match="cannot be written"):
        runs.check_writable(Path("/proc/runs"))
    runs.check_writable(tmp_path / "new" / "runs")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_events_have_their_time(tmp_path: Path):
    runs.append_event(tmp_path, "started")
    runs.append_event(tmp_path, "checkpoint", {"step": 3})
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["started", "checkpoint"]
    assert lines[1]["step"] == 3
    assert lines[0]["time"].endswith("+00:00")
