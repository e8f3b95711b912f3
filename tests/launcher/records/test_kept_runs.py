"""Runs on object storage, found by their address."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from adapters.mirror import address_of, open_mirror
from adapters.object_store import ObjectStore
from launcher import session
from launcher.records import following, runs
from recipes.address import join, parent, what_is_wrong, working_folder
from recipes.errors import CheckpointError, StorageError
from recipes.load import load_text
from support.checkpoints import make_checkpoint

RECIPE = """
name: {name}
base: {{source: org/model}}
data: {{train: [/rows.jsonl]}}
train: {{steps: 8}}
storage: {{path: "{storage}", cache: {cache}}}
"""


def make(storage: str, name: str, cache: Path) -> Path:
    folder = runs.create(storage, name, cache)
    (folder / "recipe.yaml").write_text(RECIPE.format(name=name, storage=storage, cache=cache))
    open_mirror(folder).push("recipe.yaml")
    return folder


def test_names_count_on(bucket: str, tmp_path: Path):
    storage = join(bucket, "some/prefix")
    made = [make(storage, "a", tmp_path) for _ in range(3)]
    assert [folder.name for folder in made] == ["a", "a-2", "a-3"]
    assert address_of(made[1]) == f"{storage}/a-2"
    # Also for a machine that has none of their folders.
    other = tmp_path / "other"
    newest = runs.latest(storage, "a", other)
    assert newest == working_folder(other, f"{storage}/a-3")
    assert (newest / "recipe.yaml").is_file()
    assert make(storage, "a", other).name == "a-4"
    assert runs.latest(storage, "b", other) is None
    runs.create(storage, "a", other)  # without a recipe it is none
    assert runs.latest(storage, "a", other) == working_folder(other, f"{storage}/a-4")


def test_finding_by_address(bucket: str, tmp_path: Path):
    storage = join(bucket, "runs")
    folder = make(storage, "quick", tmp_path / "cache")
    assert runs.find(f"{storage}/quick/") == folder
    elsewhere = runs.find(f"{storage}/quick", [f"storage.cache={tmp_path / 'other'}"])
    assert elsewhere == working_folder(tmp_path / "other", f"{storage}/quick")
    assert (elsewhere / "recipe.yaml").read_bytes() == (folder / "recipe.yaml").read_bytes()
    with pytest.raises(CheckpointError, match=rf"Did you mean {storage}/quick\?"):
        runs.find(f"{storage}/quik")
    with pytest.raises(CheckpointError, match=r"Runs in s3://\S+/nothing: none"):
        runs.find(join(bucket, "nothing/x"))
    with pytest.raises(CheckpointError, match="only folders and s3://bucket/prefix"):
        runs.find("gs://bucket/x")


def test_a_folder_of_a_kept_run_is_brought_up_to_date(bucket: str, tmp_path: Path):
    folder = make(bucket, "quick", tmp_path / "here")
    other = runs.find(f"{bucket}/quick", [f"storage.cache={tmp_path / 'other'}"])
    (other / "metrics.jsonl").write_text('{"step": 1}\n')
    open_mirror(other).push("metrics.jsonl")
    open_mirror(other).push_checkpoint(make_checkpoint(other, 1))
    assert runs.find(str(folder)) == folder
    assert (folder / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_storage_that_cannot_be_used(bucket: str):
    runs.check_writable(join(bucket, "some/prefix"))
    assert ObjectStore(bucket).names() == []
    with pytest.raises(StorageError, match=r"^storage.path = s3://none-such/a: cannot be used: "):
        runs.check_writable("s3://none-such/a")


def test_addresses():
    assert what_is_wrong("s3://bucket") is None
    assert what_is_wrong("s3://bucket/a/b/") is None
    for wrong in ("s3://", "s3://key:secret@bucket/a", "s3://bucket//a", "s3://bucket/./a"):
        assert what_is_wrong(wrong) is not None
    assert parent("s3://bucket/a/b") == "s3://bucket/a"
    assert parent("s3://bucket/a") == "s3://bucket"
    assert parent("s3://bucket") == "s3://bucket"


class Lines:
    """A display that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def test_events_follow_while_a_run_goes_on_and_at_its_end(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(following, "_EVENTS_S", 0.05)
    display: Any = Lines()
    folder = runs.create(bucket, "a", tmp_path)
    store = ObjectStore(join(bucket, "a"))

    def events() -> bytes:
        return store.get("events.jsonl") or b""

    def interrupted_run() -> None:
        runs.append_event(folder, "started")
        while b"started" not in events():
            time.sleep(0.02)
        (folder / "logs").mkdir()
        (folder / "logs" / "rank_000.log").write_text("all of it")
        runs.append_event(folder, "interrupted")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), following.followed(folder, display):
        interrupted_run()
    assert b"interrupted" in events()
    assert store.get("logs/rank_000.log") == b"all of it"
    assert display.lines == []


def test_events_that_cannot_follow_are_told_once_and_at_the_end(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(following, "_EVENTS_S", 0.05)
    display: Any = Lines()
    folder = runs.create(bucket, "a", tmp_path)

    tried = []

    def fail(*arguments: object) -> None:
        tried.append(arguments)
        raise StorageError("the store is away")

    def run() -> None:
        monkeypatch.setattr(ObjectStore, "put", fail)
        runs.append_event(folder, "step")
        while len(tried) < 3:
            time.sleep(0.02)

    with pytest.raises(StorageError, match="away"), following.followed(folder, display):
        run()
    assert display.lines == [f"Events do not get to {bucket}/a: the store is away"]


def test_nothing_comes_late_of_a_run_that_came_to_nothing(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its events are on their way to the store when it fails before its first step."""
    monkeypatch.setattr(following, "_EVENTS_S", 0.05)
    display: Any = Lines()
    text = RECIPE.format(name="a", storage=bucket, cache=tmp_path)
    folder = runs.create(bucket, "a", tmp_path)
    put, on_its_way, gone = ObjectStore.put, threading.Event(), threading.Event()

    def put_late(store: ObjectStore, name: str, content: bytes) -> None:
        if threading.current_thread().name == "following":
            on_its_way.set()
            gone.wait(2)
        put(store, name, content)

    discard = runs.discard

    def discard_and_tell(run_dir: Path) -> None:
        discard(run_dir)
        gone.set()

    monkeypatch.setattr(ObjectStore, "put", put_late)
    monkeypatch.setattr(runs, "discard", discard_and_tell)

    def fail() -> None:
        assert on_its_way.wait(600)
        raise StorageError("came to nothing")

    with (
        pytest.raises(StorageError, match="came to nothing"),
        following.followed(folder, display) as leave,
        session._recorded(folder, load_text(text.encode()), leave, is_new=True),
    ):
        fail()
    assert ObjectStore(join(bucket, "a")).names() == []
    assert not folder.exists()
