"""`shoal verify` on what is whole, torn, truncated, flipped, foreign, or a pickle."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from adapters.base_ref import BaseRef
from adapters.checkpoint_folder import Origin, Position, write_manifest
from launcher.cli import app
from launcher.exporting.verify import verify_path
from recipes.errors import CheckpointError, ShoalError
from support import tiny


def make_adapter(folder: Path) -> Path:
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": "/models/small"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"a": np.ones((4, 3), np.float32)}, folder / "adapter_model.safetensors")
    return folder


def make_checkpoint(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / f"step_{step:06d}"
    make_adapter(folder / "adapter")
    (folder / "trainer_state").mkdir()
    save_file({"b": np.ones(5, np.float32)}, folder / "trainer_state" / "state.safetensors")
    base = BaseRef(source="/models/small", revision=None, digest="ab" * 32, parts={})
    origin = Origin(base=base, recipe_digest="r", data_digest="cd" * 32, dtype="float32")
    write_manifest(folder, origin, Position(step=step))
    (run / "recipe.yaml").touch()
    return folder


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def test_a_run_and_its_parts(tmp_path: Path):
    run = tmp_path / "run"
    folders = [make_checkpoint(run, step) for step in (20, 40)]
    told = [str(verdict) for verdict in verify_path(run)]
    assert [line.split(":")[0] for line in told] == [f"whole  {folder}" for folder in folders]
    assert "checkpoint of step 40" in told[1]
    assert "LORA adapter on /models/small (base abababababab, data cdcdcdcdcdcd)" in told[1]
    [verdict] = verify_path(folders[0] / "adapter")
    assert verdict.whole
    assert verdict.said == "LORA adapter on /models/small (base abababababab)"


@pytest.mark.parametrize("spoil", [flip, truncate, Path.unlink])
def test_a_spoilt_checkpoint_is_told_with_its_file(tmp_path: Path, spoil):
    folder = make_checkpoint(tmp_path / "run", 20)
    make_checkpoint(tmp_path / "run", 40)
    spoil(folder / "adapter" / "adapter_model.safetensors")
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "run")])
    assert done.exit_code == 1
    first, second, summary = done.stdout.splitlines()
    assert first.startswith(f"BAD    {folder}: adapter/adapter_model.safetensors: ")
    assert second.startswith("whole")
    assert summary.startswith("1 of 2 are bad")
    assert not verify_path(folder / "adapter")[0].whole


def test_a_checkpoint_without_a_manifest_is_torn(tmp_path: Path):
    folder = make_checkpoint(tmp_path / "run", 20)
    (folder / "manifest.json").unlink()
    [verdict] = verify_path(folder)
    assert not verdict.whole
    assert verdict.said.startswith("manifest.json: checkpoint has no readable manifest")


def test_an_adapter_from_elsewhere(tmp_path: Path):
    folder = make_adapter(tmp_path / "adapter")
    [verdict] = verify_path(folder)
    assert verdict.whole
    assert verdict.said == (
        "LORA adapter, 12 numbers, on /models/small; it names no digest of its base"
    )
    truncate(folder / "adapter_model.safetensors")
    [verdict] = verify_path(folder)
    assert verdict.said.startswith("adapter_model.safetensors: is torn: ")
    save_file({"a": np.ones((0, 3), np.float32)}, folder / "adapter_model.safetensors")
    [verdict] = verify_path(folder)
    assert verdict.said == "adapter_model.safetensors: a is empty"


class _Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_pickle_is_never_read(tmp_path: Path):
    folder = make_adapter(tmp_path / "adapter")
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(_Trap(tmp_path / "ran")))
    [verdict] = verify_path(folder)
    assert verdict.said.startswith("adapter_model.bin: is a pickle, which can run code")
    assert not (tmp_path / "ran").exists()


def test_prepared_data_and_a_base(tmp_path: Path):
    samples = tiny.samples(6)
    rows = [tiny.row([sample], number) for number, sample in enumerate(samples)]
    tiny.write_prepared(tmp_path / "prepared", rows[:4], rows[4:])
    [verdict] = verify_path(tmp_path / "prepared")
    assert verdict.whole
    assert verdict.said.startswith("prepared data, 4 samples to train on")
    flip(next((tmp_path / "prepared" / "train").iterdir()))
    assert "differs from what was prepared" in verify_path(tmp_path / "prepared")[0].said
    tiny.make_llama(tmp_path / "llama")
    [verdict] = verify_path(tmp_path / "llama")
    assert verdict.whole
    assert verdict.said.startswith("base, llama of ")
    truncate(next((tmp_path / "llama").glob("*.safetensors")))
    assert not verify_path(tmp_path / "llama")[0].whole


def test_what_is_nothing_of_ours(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(CheckpointError, match=r"is no run, checkpoint, .*; it holds notes\.txt"):
        verify_path(tmp_path)
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(ShoalError, match="has no checkpoint yet"):
        verify_path(tmp_path)
