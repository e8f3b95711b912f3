"""What a checkpoint holds, and that the adapter in it is the one that was trained."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import adapters.attach
from adapters import checkpoint, checkpoint_folder
from adapters.attach import attach
from adapters.attached import trainable
from adapters.base import load_base
from adapters.base_ref import base_ref
from adapters.checkpoint_folder import Origin, Position
from recipes.errors import CheckpointError, StorageError, TrainingError
from recipes.zero import Zero
from support import jobs
from support.asked import ids, train_and_ask
from support.ranks import run_ranks


@pytest.fixture(scope="module")
def runs(folders: Path) -> dict:
    """Under stages 0 and 3."""
    chosen = {stage: jobs.grouped(zero=Zero(stage=stage)) for stage in (0, 3)}
    return run_ranks(2, train_and_ask, folders, chosen)


@pytest.mark.parametrize("stage", [0, 3])
def test_peft_alone_opens_the_adapter(folders: Path, runs: dict, stage: int):
    base = AutoModelForCausalLM.from_pretrained(folders / "llama", dtype=torch.float32)
    untrained = base(input_ids=ids()).logits
    model = PeftModel.from_pretrained(base, str(Path(runs[stage]["checkpoint"]) / "adapter"))
    logits = model(input_ids=ids()).logits
    torch.testing.assert_close(logits, runs[stage]["logits"], rtol=1e-5, atol=1e-5)
    assert (logits - untrained).abs().max() > 1e-2


@pytest.mark.parametrize("stage", [0, 3])
def test_nothing_frozen_is_written(folders: Path, runs: dict, stage: int):
    folder = Path(runs[stage]["checkpoint"])
    adapter = load_file(folder / "adapter/adapter_model.safetensors")
    state = load_file(folder / "trainer_state/state.safetensors")
    assert adapter and all("lora_" in name for name in [*adapter, *state])
    assert len(state) == 3 * len(adapter)
    tensor_bytes = sum(t.numel() * t.element_size() for t in [*adapter.values(), *state.values()])
    trained_bytes = sum(tensor.numel() * 4 for tensor in adapter.values())
    assert tensor_bytes == 4 * trained_bytes
    assert sorted(file.name for file in folder.rglob("*.*")) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
        "state.safetensors",
    ]


def test_the_model_is_not_looked_through_while_it_computes(folders: Path):
    """The saver's thread would meet modules that come and go: PEFT puts them into experts' stacks
    in each forward, and "dictionary changed size during iteration" ended such runs."""
    assert run_ranks(1, _watch, folders) == ["MainThread"] * 2


def _watch(folders: Path) -> list[str]:
    saved, threads = adapters.attach._saved, []

    def watched(*args: Any) -> Any:
        threads.append(threading.current_thread().name)
        return saved(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapters.attach, "_saved", watched)
        jobs.train(folders, "watched", jobs.recipe())
    return threads


def test_the_adapter_knows_its_base(folders: Path, runs: dict):
    folder = Path(runs[0]["checkpoint"])
    config = json.loads((folder / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folders / "llama")
    assert config["inference_mode"] is True
    assert checkpoint_folder.verify(folder)["base"]["source"] == str(folders / "llama")


def test_an_altered_file_is_noticed_and_passed_over(runs: dict, tmp_path: Path):
    import shutil

    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(Path(runs[0]["checkpoint"]).parent, checkpoints)
    newest = checkpoint_folder.newest(checkpoints)
    assert newest is not None and newest.name == "step_000006"
    weights = newest / "adapter" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors: differs"):
        checkpoint_folder.verify(newest)
    older = checkpoint_folder.newest(checkpoints)
    assert older is not None and older.name == "step_000003"
    (older / "manifest.json").write_text("{")
    assert checkpoint_folder.newest(checkpoints) is None


@pytest.fixture
def save(folders: Path, tmp_path: Path) -> Callable[..., Path]:
    """Saves what a new adapter holds after step 3, or a changed `state` of it."""
    base = load_base(folders / "llama", "causal_lm", torch.float32, "sdpa")
    attached = attach(base, jobs.recipe().adapter, task="causal_lm", seed=0, steps=6)
    tensors = {name: p.detach().clone() for name, p in trainable(attached.model).items()}
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    whole = checkpoint.TrainerState(
        step=3, master=tensors, optimizer_name="adamw", optimizer={"exp_avg": copies}
    )

    def save(change: Callable[[checkpoint.TrainerState], None] = lambda state: None) -> Path:
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        change(whole)
        return checkpoint.save(
            tmp_path,
            checkpoint.adapter_of(attached, whole, shapes),
            whole,
            origin=Origin(
                base=base_ref(str(folders / "llama"), None, folders / "llama"),
                recipe_digest="x",
                data_digest="y",
                dtype="float32",
            ),
            position=Position(step=3, recent_losses=(0.5,)),
        )

    return save


def test_a_full_disk_leaves_no_checkpoint(
    save: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*args: object, **kwargs: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(StorageError, match="step_000003: cannot be written: I/O error: No space"):
        save()
    assert list(tmp_path.iterdir()) == []


def _one(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in tensors if "lora_B" in name)


def _empty(state: checkpoint.TrainerState) -> None:
    state.master[_one(state.master)] = torch.zeros(0)


def _no_number(state: checkpoint.TrainerState) -> None:
    state.master[_one(state.master)][0, 0] = math.nan


def _missing(state: checkpoint.TrainerState) -> None:
    del state.master[_one(state.master)]


def _frozen(state: checkpoint.TrainerState) -> None:
    state.master["base_model.model.model.norm.weight"] = torch.ones(64)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (_empty, CheckpointError, "was gathered with the shape (0,)"),
        (_no_number, TrainingError, "holds values that are no numbers"),
        (_missing, CheckpointError, "what was gathered is not the adapter"),
        (_frozen, CheckpointError, "model.norm.weight"),
    ],
)
def test_what_is_not_the_adapter_is_not_published(
    save: Callable[..., Path],
    tmp_path: Path,
    change: Callable[..., None],
    error: type[Exception],
    said: str,
):
    with pytest.raises(error, match=re.escape(said)):
        save(change)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_lies_is_found_out(
    save: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Every file is whole by its hash, but holds another value than what was given to write."""
    write = checkpoint.save_file

    def write_wrong(tensors: dict[str, torch.Tensor], *args: object, **kwargs: object) -> None:
        write({name: tensor + 1 for name, tensor in tensors.items()}, *args, **kwargs)

    monkeypatch.setattr(checkpoint, "save_file", write_wrong)
    with pytest.raises(CheckpointError, match="does not read back as it was written"):
        save()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_knows_its_position(save: Callable[..., Path]):
    folder = save()
    position = checkpoint_folder.read_position(folder)
    assert position == Position(step=3, recent_losses=(0.5,))
    checkpoint_folder.check_data(folder, "y")
    with pytest.raises(CheckpointError, match="was trained on other data"):
        checkpoint_folder.check_data(folder, "z")


def test_old_checkpoints_and_torn_ones_go(tmp_path: Path):
    for name in ("step_000001", "step_000002", "step_000010", ".step_000011.ab12cd34"):
        (tmp_path / name).mkdir()
    checkpoint_folder.prune(tmp_path / "step_000010", keep=2)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["step_000002", "step_000010"]


def test_the_checkpoint_just_saved_stays(tmp_path: Path):
    """A bad one of a later step was passed over; by its number alone it would be the one kept."""
    for name in ("step_000004", "step_000008", "step_000100"):
        (tmp_path / name).mkdir()
    checkpoint_folder.prune(tmp_path / "step_000008", keep=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step_000008"]


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        ({"keep": 1}, [10, 20, 30, 40]),
        ({"keep": 1, "every": 20}, [10, 30]),
        ({"keep": 1, "best": 1, "by": "loss"}, [20, 30, 40]),
        ({"keep": 1, "best": 1, "by": "accuracy"}, [10, 30, 40]),
        ({"keep": 9}, []),
    ],
)
def test_which_checkpoints_stay(rule: dict, gone: list[int]):
    folders = [Path(f"step_{step:06d}") for step in (10, 20, 30, 40, 50)]
    loss = dict(zip(folders, [0.1, 0.9, None, 0.5, 0.6], strict=True))
    rule = {"every": None, "best": 0, "by": "loss"} | rule
    unwanted = checkpoint_folder.unwanted(folders, loss, **rule)
    assert [int(folder.name[5:]) for folder in unwanted] == gone
