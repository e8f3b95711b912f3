"""The whole chain with a run that is kept on object storage, through the command a person types."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import safetensors.numpy
from test_end_to_end import SHOAL, make_workplace, wait_for

from adapters.object_store import ObjectStore
from recipes.address import join, working_folder
from support.commands import Here
from trainer.ledger import read_ledger

STEPS = ["train.steps=300", "checkpoint.every_steps=50", "evaluate.before=false"]
SECRET = "secret-key-of-a-test"


@pytest.fixture(scope="module")
def workplace(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("workplace"), llama)


def losses(text: str) -> list[float]:
    return [json.loads(line)["loss"] for line in text.splitlines()]


def read(address: str, name: str) -> str:
    content = ObjectStore(address).get(name)
    assert content is not None, f"{address}/{name}"
    return content.decode()


def checkpoints(address: str) -> list[str]:
    names = ObjectStore(address).names("checkpoints")
    return sorted({name.split("/")[1] for name in names})


def assert_same_tensors(ours: bytes | None, theirs: bytes) -> None:
    """Bit by bit; the order of the names in the file's header is not fixed."""
    assert ours is not None
    left, right = safetensors.numpy.load(ours), safetensors.numpy.load(theirs)
    assert left.keys() == right.keys() and left
    for name, values in left.items():
        assert values.tobytes() == right[name].tobytes(), name


@pytest.mark.slow
def test_interrupted_resumed_and_forked_where_nothing_of_it_is_left(
    here: Here, workplace: Path, bucket: str, tmp_path: Path
):
    """On a machine that has only the address, a run ends as if it had never been interrupted."""
    straight = here("run", "tiny.yaml", *STEPS, "name=straight")
    assert straight.returncode == 0, straight.stderr
    expected = workplace / "runs" / "straight"

    storage = join(bucket, "some/prefix")
    address = join(storage, "tiny")
    folder = working_folder(workplace / "cache", address)
    options = [*STEPS, f"storage.path={storage}", "checkpoint.keep=2"]
    stopped_at = interrupt(workplace, address, options)
    shutil.rmtree(folder.parent)

    resumed = here("run", "tiny.yaml", *options, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"step_{stopped_at:06d}" in resumed.stdout
    assert f"generate {address}" in resumed.stdout
    assert_kept(address, expected, tmp_path)
    assert_not_written(workplace, ObjectStore(address))

    shutil.rmtree(folder)
    answered = here("generate", address, "w5 w0", "--max-new-tokens", "3")
    assert answered.returncode == 0, answered.stderr
    shutil.rmtree(folder)
    after = read(address, "evaluation/after.json")
    ObjectStore(address).delete("evaluation/after.json")
    again = here("eval", address)
    assert again.returncode == 0, again.stderr
    assert read(address, "evaluation/after.json") == after

    shutil.rmtree(folder)
    fork_past_a_bad_checkpoint(here, storage)


def interrupt(workplace: Path, address: str, options: list[str]) -> int:
    """The step at which a new run was stopped."""
    process = subprocess.Popen(
        [SHOAL, "run", "tiny.yaml", *options],
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: "step_000100" in str(checkpoints(address)), process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 130, output
    assert f"resume {address}" in output
    stopped_at = len(read(address, "metrics.jsonl").splitlines())
    assert 100 <= stopped_at < 300
    assert checkpoints(address)[-1] == f"step_{stopped_at:06d}"
    assert len(checkpoints(address)) == 2
    return stopped_at


def assert_kept(address: str, expected: Path, folder: Path) -> None:
    """All of a run that went on once is there, and as the `expected` one, which never stopped."""
    assert losses(read(address, "metrics.jsonl")) == losses(
        (expected / "metrics.jsonl").read_text()
    )
    store = ObjectStore(address)
    for part in ("adapter/adapter_model.safetensors", "trainer_state/state.safetensors"):
        content = store.get(f"checkpoints/step_000300/{part}")
        assert_same_tensors(content, (expected / "checkpoints/step_000300" / part).read_bytes())
    events = [json.loads(line)["event"] for line in read(address, "events.jsonl").splitlines()]
    assert events.count("started") == 2 and events[-1] == "finished"
    assert read(address, "logs/rank_001.log").count("---") >= 4  # begun on both occasions
    for name in store.names("ledger"):
        store.get_file(name, folder / name)
    assert len(list((folder / "ledger").iterdir())) == 2
    ours, theirs = read_ledger(folder / "ledger"), read_ledger(expected / "ledger")
    assert [entry.samples for entry in ours.entries] == [entry.samples for entry in theirs.entries]


def assert_not_written(workplace: Path, store: ObjectStore) -> None:
    """What opens the store is nowhere, here or there."""
    places = [store.get(name) for name in store.names()]
    places += [
        file.read_bytes() for file in (workplace / "cache" / "runs").rglob("*.*") if file.is_file()
    ]
    assert not any(SECRET.encode() in content for content in places if content)


def fork_past_a_bad_checkpoint(here: Here, storage: str) -> None:
    """A run of its own, also kept there, from the newest whole checkpoint; on a Ray that was
    started without AWS_*, whose ranks have them from the driver alone."""
    import ray

    @ray.remote(num_cpus=0)
    def known() -> list[str]:
        return [name for name in os.environ if name.startswith("AWS_")]

    assert not {"AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL"} & set(ray.get(known.remote()))
    address, second = join(storage, "tiny"), join(storage, "tiny-2")
    ObjectStore(address).put("checkpoints/step_000300/adapter/adapter_config.json", b"{}")
    forked = here("resume", address, "--fork")
    assert forked.returncode == 0, forked.stderr
    said = r"Passing over a checkpoint: s3://\S+/step_000300/adapter/adapter_config.json: differs"
    assert re.search(said, forked.stdout.replace("\n", "")), forked.stdout
    assert losses(read(second, "metrics.jsonl")) == losses(read(address, "metrics.jsonl"))
    assert checkpoints(second)[-1] == "step_000300"
    final = "checkpoints/step_000300/trainer_state/state.safetensors"
    assert_same_tensors(ObjectStore(second).get(final), ObjectStore(address).get(final) or b"")
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    files = [file for file in session.rglob("*") if file.is_file() and "logs" in file.parts]
    assert files
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []


def test_what_cannot_be_used_is_one_line_and_starts_nothing(
    here: Here, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    found = here("run", "tiny.yaml", "storage.path=s3://no-such-bucket/runs")
    assert found.returncode == 1
    assert "there is no such bucket" in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert found.stdout == ""
    missing = here("resume", join(bucket, "tiny"))
    assert missing.returncode == 1
    assert f"{bucket}/tiny: there is no such run. Runs in {bucket}: none" in missing.stderr
    other = here("run", "tiny.yaml", "storage.path=gs://bucket/runs")
    assert other.returncode == 2
    assert "only folders and s3://bucket/prefix can be used" in other.stderr
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    off = here("run", "tiny.yaml", f"storage.path={bucket}")
    assert off.returncode == 1
    assert "http://127.0.0.1:9 cannot be reached" in off.stderr


def test_a_run_that_never_began_leaves_nothing_there(here: Here, bucket: str):
    wrong = here("run", "tiny.yaml", f"storage.path={bucket}", "adapter.targets=[q_prj]")
    assert wrong.returncode == 1
    assert ObjectStore(bucket).names() == []
