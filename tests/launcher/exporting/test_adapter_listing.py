"""`shoal adapters` over folders and addresses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapters.base_ref import BaseRef
from adapters.checkpoint_folder import adapter_folder, reseal
from adapters.exported import copy_adapter, seal
from adapters.object_store import ObjectStore
from launcher.cli import app
from launcher.exporting.adapter_listing import listed, rows
from launcher.records.runs import names
from recipes.address import join
from recipes.errors import CheckpointError
from support.checkpoints import make_checkpoint, reseal_files

RECIPE = (
    'name: "x"  # recipe\n\nadapter:\n  targets: ["q"]  # default\n  kind: "{kind}"  # recipe\n'
)


def make_run(
    folder: Path, *, base: str, digest: str, kind: str = "lora", steps: tuple[int, ...] = (2, 12)
) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(kind=kind))
    for step in steps:
        checkpoint = make_checkpoint(folder, step, scores={"loss": 1.5})
        reseal(
            checkpoint,
            base=BaseRef(source=base, revision=None, digest=digest * 64, parts={}),
            recipe_digest="r",
            data_digest="d",
        )
    return folder


def export(run: Path, folder: Path) -> None:
    checkpoint = run / "checkpoints" / "step_000002"
    (adapter_folder(checkpoint) / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    reseal_files(checkpoint)
    folder.mkdir(parents=True)
    copy_adapter(checkpoint, folder)
    (folder / "recipe.yaml").write_text((run / "recipe.yaml").read_text())
    seal(folder, checkpoint, scores={"accuracy": 0.875})


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Runs on two bases, an export beside them, a run without a checkpoint, and something else."""
    folder = tmp_path / "runs"
    first = make_run(folder / "b", base="/models/small", digest="1")
    make_run(folder / "a", base="org/large", digest="2", kind="ia3")
    make_run(folder / "c", base="org/small", digest="1", kind="full")
    make_run(folder / "empty", base="org/large", digest="2", steps=())
    export(first, folder / "exported")
    (folder / "notes").mkdir()
    return folder


def table(path: str) -> list[list[str]]:
    return rows(listed([path], given=True).adapters)


def test_those_of_one_base_stand_together(storage: Path):
    found = table(str(storage))
    assert [[row[0], Path(row[1]).name, *row[2:4], row[5]] for row in found] == [
        ["org/large 222222222222", "a", "12", "ia3", "loss 1.500"],
        ["small 111111111111", "b", "12", "lora", "loss 1.500"],
        ["org/small 111111111111", "c", "12", "full", "loss 1.500"],
        ["small 111111111111", "exported", "2", "lora", "accuracy 0.875"],
    ]
    assert all(row[4].endswith(" KiB") for row in found)


def test_the_command(storage: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(storage.parent)
    done = CliRunner().invoke(app, ["adapters"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["base", "adapter", "step", "kind", "size", "measured"]
    assert len(lines) == 6
    assert lines[-1] == "Without a checkpoint yet: runs/empty"
    monkeypatch.chdir(storage / "notes")
    done = CliRunner().invoke(app, ["adapters"])
    assert done.stdout == "There are no adapters in runs and exports\n"


def test_what_was_measured_after_training_is_told(storage: Path):
    evaluation = storage / "b" / "evaluation"
    evaluation.mkdir()
    for step, told in ((12, "accuracy 0.910"), (10, "loss 1.500")):
        measured = {"step": step, "scores": {"accuracy": 0.91, "loss": 0.1}}
        (evaluation / "after.json").write_text(json.dumps(measured))
        [[*_, found]] = table(str(storage / "b"))
        assert found == told


def test_a_torn_one_is_told(storage: Path):
    manifest = storage / "b" / "checkpoints" / "step_000012" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-7])
    done = CliRunner().invoke(app, ["adapters", str(storage)])
    assert f"BAD: {storage}/b; what is wrong: shoal verify {storage}/b" in done.stdout
    assert f"{storage}/a" in done.stdout


def test_an_export_is_no_run(storage: Path):
    assert names(storage) == ["a", "b", "c", "empty"]
    [[_, name, *_]] = table(str(storage / "exported"))
    assert name == str(storage / "exported")


def test_a_place_that_is_not_there(tmp_path: Path):
    with pytest.raises(CheckpointError, match="nowhere: there is no such folder"):
        listed([str(tmp_path / "nowhere")], given=True)
    with pytest.raises(CheckpointError, match=r"only folders and s3://"):
        listed(["gs://bucket"], given=True)


def test_an_address(storage: Path, bucket: str):
    address = join(bucket, "runs")
    store = ObjectStore(address)
    for file in storage.rglob("*"):
        if file.is_file():
            store.put_file(file.relative_to(storage).as_posix(), file)
    here = [[row[0], Path(row[1]).name, *row[2:]] for row in table(str(storage))]
    there = table(address)
    assert sorted(
        [row[0], row[1].removeprefix(f"{address}/"), *row[2:]] for row in there
    ) == sorted(here)
    [one] = table(join(address, "a"))
    assert one[1] == join(address, "a")
