"""Runs on object storage, against a real server."""

from __future__ import annotations

import gzip
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters import checkpoint_folder
from adapters.mirror import NoMirror, ObjectMirror, address_of, open_mirror
from adapters.object_store import ObjectStore
from recipes.address import join
from recipes.errors import CheckpointError, StorageError
from support.checkpoints import FILES, make_checkpoint

RULE: dict[str, Any] = {"keep": 2, "every": None, "best": 0, "by": "loss"}


@pytest.fixture
def address(bucket: str) -> str:
    return join(bucket, "runs/tiny")


def new_run(folder: Path, address: str) -> ObjectMirror:
    mirror = ObjectMirror(folder, address)
    assert mirror.take("me")
    return mirror


def elsewhere(tmp_path: Path, address: str, name: str = "elsewhere") -> ObjectMirror:
    """The run as a machine sees it that has nothing of it."""
    folder = tmp_path / name
    shutil.rmtree(folder, ignore_errors=True)
    mirror = ObjectMirror(folder, address)
    mirror.join()
    return mirror


def steps(address: str) -> list[int]:
    """Steps of which anything is left in the store."""
    names = ObjectStore(address).names("checkpoints")
    return sorted({int(name.split("/")[1][5:]) for name in names})


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path, address: str):
    mirror = new_run(tmp_path / "here", address)
    folder = make_checkpoint(tmp_path / "here", 4)
    mirror.push_checkpoint(folder)
    found = elsewhere(tmp_path, address).newest()
    assert found == tmp_path / "elsewhere" / "checkpoints" / "step_000004"
    for name in (*FILES, "manifest.json"):
        assert (found / name).read_bytes() == (folder / name).read_bytes()
    assert address_of(tmp_path / "elsewhere") == address


class Cut(Exception):
    """The upload ends here."""


def cut_after(monkeypatch: pytest.MonkeyPatch, count: int) -> Callable[[], bool]:
    """From the store's `count + 1`-th change on, nothing gets there; whether it came to that."""
    made = 0

    def cutting(change: Callable[..., None]) -> Callable[..., None]:
        def cut(*arguments: object) -> None:
            nonlocal made
            if made >= count:
                raise Cut
            made += 1
            change(*arguments)

        return cut

    for name in ("put", "put_file", "delete", "delete_below"):
        monkeypatch.setattr(ObjectStore, name, cutting(getattr(ObjectStore, name)))
    return lambda: made >= count


@pytest.mark.parametrize("again", [False, True], ids=["new", "over an older one"])
def test_an_upload_that_is_cut_off_is_no_checkpoint(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch, again: bool
):
    """Wherever it is cut: what is found then is the checkpoint before, or all of the new one."""
    cut_at = 0
    while True:
        run = tmp_path / f"run-{cut_at}"
        own = f"{address}-{cut_at}"
        mirror = new_run(run, own)
        mirror.push_checkpoint(make_checkpoint(run, 4))
        if again:
            mirror.push_checkpoint(make_checkpoint(run, 8, text="of another life"))
        folder = make_checkpoint(run, 8, text="new")
        with monkeypatch.context() as patch:
            cut_after(patch, cut_at)
            try:
                mirror.push_checkpoint(folder)
                ended = True
            except Cut:
                ended = False
        bad: list[str] = []
        found = elsewhere(tmp_path, own).newest(bad.append)
        assert found is not None
        assert bad == []  # not even looked at
        if found.name == "step_000008":
            state = (found / FILES[-1]).read_text()
            assert "new" in state or (again and cut_at == 0)
        assert (found.name == "step_000008") == (ended or (again and cut_at == 0))
        if ended:
            break
        cut_at += 1
    assert cut_at >= 4  # three files and the manifest, each cut off once


def test_a_manifest_that_got_there_before_its_files_would_be_found_out(
    tmp_path: Path, address: str
):
    """What the order of uploads guards against."""
    mirror = new_run(tmp_path / "here", address)
    mirror.push_checkpoint(make_checkpoint(tmp_path / "here", 4))
    folder = make_checkpoint(tmp_path / "here", 8)
    ObjectStore(address).put_file("checkpoints/step_000008/manifest.json", folder / "manifest.json")
    bad: list[str] = []
    found = elsewhere(tmp_path, address).newest(bad.append)
    assert found is not None and found.name == "step_000004"
    assert len(bad) == 1 and f"{address}/checkpoints/step_000008/adapter" in bad[0]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["altered", "cut", "gone"])
def test_a_bad_newest_one_is_passed_over_with_the_reason(
    tmp_path: Path, address: str, name: str, damage: str
):
    mirror = new_run(tmp_path / "here", address)
    for step in (4, 8):
        mirror.push_checkpoint(make_checkpoint(tmp_path / "here", step))
    store, key = ObjectStore(address), f"checkpoints/step_000008/{name}"
    content = store.get(key)
    assert content is not None
    if damage == "gone":
        store.delete(key)
    else:
        store.put(key, content[:-1] if damage == "cut" else b"?" + content[1:])
    bad: list[str] = []
    other = elsewhere(tmp_path, address)
    found = other.newest(bad.append)
    assert found is not None and found.name == "step_000004"
    said = "is missing from the checkpoint" if damage == "gone" else "differs from what was saved"
    assert bad == [f"{address}/{key}: {said}"]
    # Nothing of it is left where it could be taken for one.
    assert [entry.name for entry in found.parent.iterdir()] == ["step_000004"]
    with pytest.raises(CheckpointError, match=said):
        other.fetch(found.with_name("step_000008"))


def test_a_bad_one_here_is_fetched_again(tmp_path: Path, address: str):
    mirror = new_run(tmp_path / "here", address)
    folder = make_checkpoint(tmp_path / "here", 4)
    mirror.push_checkpoint(folder)
    (folder / FILES[0]).write_text("?")
    assert mirror.newest() == folder
    assert checkpoint_folder.verify(folder)["step"] == 4


def test_one_that_is_only_here_is_found_and_brought(tmp_path: Path, address: str):
    """The driver of a rank that was killed between publishing and uploading."""
    mirror = new_run(tmp_path / "here", address)
    mirror.push_checkpoint(make_checkpoint(tmp_path / "here", 4))
    make_checkpoint(tmp_path / "here", 8)
    (tmp_path / "here" / "metrics.jsonl").write_text('{"step": 1}\n')
    found = mirror.newest()
    assert found is not None and found.name == "step_000008"
    mirror.secure(found)
    other = elsewhere(tmp_path, address)
    brought = other.newest()
    assert brought is not None and brought.name == "step_000008"
    assert other.read("metrics.jsonl") == '{"step": 1}\n'


def test_pruning_deletes_there(tmp_path: Path, address: str):
    mirror = new_run(tmp_path / "here", address)
    for step in range(1, 7):
        folder = make_checkpoint(tmp_path / "here", step, scores={"loss": 9.0 + abs(step - 2)})
        mirror.push_checkpoint(folder)
    # This machine has nothing of the older ones, and their scores decide all the same.
    mirror = elsewhere(tmp_path, address)
    mirror.prune(folder, keep=1, every=3, best=1, by="loss")
    assert steps(address) == [2, 3, 6]
    found = elsewhere(tmp_path, address).newest()
    assert found is not None and found.name == "step_000006"


def test_pruning_never_takes_what_was_just_saved(tmp_path: Path, address: str):
    """A bad one of a later step was passed over; by its number alone it would be the one kept."""
    mirror = new_run(tmp_path / "here", address)
    for step in (4, 100, 8):
        folder = make_checkpoint(tmp_path / "here", step)
        mirror.push_checkpoint(folder)
    ObjectStore(address).put(f"checkpoints/step_000100/{FILES[0]}", b"?")
    mirror.prune(folder, keep=1, every=None, best=0, by="loss")
    assert steps(address) == [8]
    found = elsewhere(tmp_path, address).newest()
    assert found is not None and found.name == "step_000008"


def test_pruning_that_is_cut_off_leaves_no_half_checkpoint(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
):
    for cut_at in range(4):
        run, own = tmp_path / f"run-{cut_at}", f"{address}-{cut_at}"
        mirror = new_run(run, own)
        for step in (1, 2, 3):
            folder = make_checkpoint(run, step)
            mirror.push_checkpoint(folder)
        with monkeypatch.context() as patch:
            cut_after(patch, cut_at)
            with pytest.raises(Cut):
                mirror.prune(folder, **{**RULE, "keep": 1})
        other = elsewhere(tmp_path, own)
        sealed = [
            name for name in ObjectStore(own).names("checkpoints") if name.endswith("manifest.json")
        ]
        for name in sealed:
            other.fetch(tmp_path / "elsewhere" / "checkpoints" / name.split("/")[1])
        assert "checkpoints/step_000003/manifest.json" in sealed
        assert len(sealed) == [3, 2, 2, 1][cut_at]
        # The next one clears up what is left.
        mirror.prune(folder, **{**RULE, "keep": 1})
        assert steps(own) == [3]


def test_only_what_changed_is_pushed(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch):
    mirror = new_run(tmp_path / "here", address)
    (tmp_path / "here" / "ledger").mkdir()
    (tmp_path / "here" / "ledger" / "attempt_0001.jsonl").write_text("{}\n")
    (tmp_path / "here" / "ledger" / ".attempt.aside").write_text("half")
    (tmp_path / "here" / "metrics.jsonl").write_text("{}\n")
    put: list[str] = []
    monkeypatch.setattr(ObjectStore, "put", lambda self, name, content: put.append(name))
    mirror.push("metrics.jsonl", "ledger", "evaluation")
    mirror.push("metrics.jsonl", "ledger", "evaluation")
    assert put == ["metrics.jsonl", "ledger/attempt_0001.jsonl"]
    (tmp_path / "here" / "metrics.jsonl").write_text("{}\n{}\n")
    mirror.push("metrics.jsonl", "ledger", "evaluation")
    assert put[2:] == ["metrics.jsonl"]


def write_run(folder: Path, lines: int, text: str) -> None:
    (folder / "ledger").mkdir(exist_ok=True)
    for file in ("metrics.jsonl", "ledger/attempt_0001.jsonl", "events.jsonl"):
        (folder / file).write_text(f"{text}\n" * lines)


def test_records_come_from_the_side_with_the_newer_checkpoint(tmp_path: Path, address: str):
    here = tmp_path / "here"
    mirror = new_run(here, address)
    write_run(here, 4, "there")
    mirror.push("metrics.jsonl", "ledger", "events.jsonl")
    mirror.push_checkpoint(make_checkpoint(here, 4))
    # As new: this side got on, and wrote more.
    write_run(here, 6, "here")
    mirror.fetch_records()
    assert (here / "metrics.jsonl").read_text() == "here\n" * 6
    # Newer: the store has nothing of it.
    make_checkpoint(here, 8)
    mirror.fetch_records()
    assert (here / "metrics.jsonl").read_text() == "here\n" * 6
    # Older: another machine went on.
    shutil.rmtree(here / "checkpoints")
    (here / "ledger" / "attempt_0002.jsonl").write_text("only here")
    mirror.fetch_records()
    assert (here / "metrics.jsonl").read_text() == "there\n" * 4
    assert (here / "events.jsonl").read_text() == "there\n" * 4
    assert [file.name for file in (here / "ledger").iterdir()] == ["attempt_0001.jsonl"]


def test_a_node_without_the_curve_fetches_it(tmp_path: Path, address: str):
    mirror = new_run(tmp_path / "here", address)
    write_run(tmp_path / "here", 4, "there")
    mirror.push("metrics.jsonl", "ledger", "events.jsonl")
    other = elsewhere(tmp_path, address)
    other.fetch_curve(4)
    found = sorted(file.name for file in (tmp_path / "elsewhere").rglob("*.jsonl"))
    assert found == ["attempt_0001.jsonl", "metrics.jsonl"]
    write_run(tmp_path / "elsewhere", 5, "its own")
    other.fetch_curve(4)
    assert (tmp_path / "elsewhere" / "metrics.jsonl").read_text() == "its own\n" * 5


def test_a_folder_of_an_earlier_run_of_the_address_is_emptied(tmp_path: Path, address: str):
    here = tmp_path / "here"
    mirror = new_run(here, address)
    make_checkpoint(here, 100)
    ObjectStore(address).delete_below("")
    assert elsewhere(tmp_path, address).newest() is None
    assert ObjectMirror(tmp_path / "other", address).take("somebody")
    mirror.fetch_records()
    assert mirror.newest() is None


def test_an_address_is_taken_once(tmp_path: Path, address: str):
    assert ObjectMirror(tmp_path / "a", address).take("a")
    assert not ObjectMirror(tmp_path / "b", address).take("b")
    assert ObjectStore(address).names() == [".owner-a"]
    assert not (tmp_path / "b").exists()


def test_of_two_at_the_same_moment_not_both_get_an_address(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
):
    """The other puts its object between this one's put and look."""
    put = ObjectStore.put

    def both(store: ObjectStore, name: str, content: bytes) -> None:
        put(store, name, content)
        put(store, ".owner-other", b"")

    monkeypatch.setattr(ObjectStore, "put", both)
    assert not ObjectMirror(tmp_path / "a", address).take("a")


def test_discarding_spares_what_has_a_checkpoint(tmp_path: Path, address: str):
    mirror = new_run(tmp_path / "here", address)
    mirror.push_checkpoint(make_checkpoint(tmp_path / "here", 4))
    mirror.discard()
    assert steps(address) == [4]
    ObjectStore(address).delete("checkpoints/step_000004/manifest.json")
    mirror.discard()
    assert ObjectStore(address).names() == []


def test_a_plain_folder_has_no_other_place(tmp_path: Path):
    mirror = open_mirror(tmp_path)
    assert isinstance(mirror, NoMirror)
    folder = make_checkpoint(tmp_path, 4)
    mirror.push_checkpoint(folder)
    mirror.prune(folder, **RULE)
    assert mirror.newest() == folder
    assert mirror.read("attempt") is None


def test_the_store_tells_in_one_line_what_is_wrong(bucket: str, monkeypatch: pytest.MonkeyPatch):
    ObjectStore(join(bucket, "a"), patience_s=0).check()
    assert ObjectStore(bucket).names() == []
    begin = time.monotonic()
    with pytest.raises(StorageError, match=r"^s3://no-such-bucket/a/.*: there is no such bucket"):
        ObjectStore("s3://no-such-bucket/a", patience_s=0).check()
    # Port 9 is that of the discard service, which nobody runs.
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"http://127.0.0.1:9 cannot be reached") as refused:
        ObjectStore(join(bucket, "a"), patience_s=0).check()
    assert "\n" not in str(refused.value)
    assert time.monotonic() - begin < 30  # with patience it would be a minute each


def test_a_server_that_never_answers_is_given_up_soon(bucket: str, monkeypatch: pytest.MonkeyPatch):
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(20)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begin = time.monotonic()
        with pytest.raises(StorageError, match="cannot be reached"):
            ObjectStore(bucket, patience_s=0).check()
        assert time.monotonic() - begin < 29  # of a store that is known it would be 30 s


def test_no_rights(bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch):
    import requests

    def ask_for_rights_after(requests_made: int) -> None:
        requests.post(f"{s3_server}/moto-api/reset-auth", data=str(requests_made), timeout=10)

    ask_for_rights_after(0)
    try:
        with pytest.raises(StorageError, match="the server allows no such access"):
            ObjectStore(bucket, patience_s=0).check()
    finally:
        ask_for_rights_after(10**9)
    ObjectStore(bucket, patience_s=0).check()


def test_what_passes_is_tried_again(bucket: str, monkeypatch: pytest.MonkeyPatch):
    store = ObjectStore(bucket)
    calls = []

    class Files:
        def open_input_stream(self, path: str, compression: None) -> object:
            calls.append(path)
            if len(calls) < 3:
                raise OSError("AWS Error SLOW_DOWN during GetObject operation: later, please")
            raise FileNotFoundError(path)

    monkeypatch.setattr(store, "_files", Files())
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert store.get("a") is None
    assert len(calls) == 3


def test_scores_that_cannot_be_read_are_none(tmp_path: Path, address: str):
    mirror = new_run(tmp_path / "here", address)
    for step, loss in ((1, 1.0), (2, 0.5), (3, 2.0)):
        folder = make_checkpoint(tmp_path / "here", step, scores={"loss": loss})
        mirror.push_checkpoint(folder)
    ObjectStore(address).put("checkpoints/step_000002/manifest.json", json.dumps({}).encode())
    mirror.prune(folder, keep=1, every=None, best=1, by="loss")
    assert steps(address) == [1, 3]


def test_a_packed_file_is_kept_as_it_is(bucket: str, tmp_path: Path):
    """Arrow would pack and unpack by the end of the name."""
    store, content = ObjectStore(bucket), gzip.compress(b"rows")
    store.put("a.gz", content)
    (tmp_path / "b.gz").write_bytes(content)
    store.put_file("b.gz", tmp_path / "b.gz")
    store.get_file("a.gz", tmp_path / "a.gz")
    assert store.sizes() == {"a.gz": len(content), "b.gz": len(content)}
    assert store.get("b.gz") == (tmp_path / "a.gz").read_bytes() == content
