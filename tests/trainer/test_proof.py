"""A run's first checkpoint is opened again before it counts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from adapters.movement import check_moved
from recipes.adapter import Lora, PromptTuning
from recipes.checkpoint import Checkpoint
from recipes.errors import AdapterError, CheckpointError
from recipes.zero import Zero
from support import jobs
from support.asked import divide_everything
from support.ranks import run_ranks
from trainer.reporter import SilentReporter

PROVEN = Checkpoint(every_steps=3, keep=5)


class Events(SilentReporter):
    def __init__(self) -> None:
        self.checkpoints: list[dict] = []

    def event(self, kind: str, details: dict) -> None:
        if kind == "checkpoint":
            self.checkpoints.append(json.loads(json.dumps(details)))


def _train(root: Path, name: str, adapter: object, stage: int) -> list[dict]:
    divide_everything()
    events = Events()
    chosen = jobs.recipe(name=name, adapter=adapter, zero=Zero(stage=stage), checkpoint=PROVEN)
    jobs.train(root, name, chosen, reporter=events)
    return events.checkpoints


def _spoil(root: Path) -> str:
    """What is saved is not what was trained."""
    from adapters import attach

    real = attach._saved
    attach._saved = lambda model, master: {
        name: values * 1.5 for name, values in real(model, master).items()
    }
    try:
        _train(root, "spoilt", Lora(r=4, alpha=8), 0)
    except CheckpointError as error:
        return str(error)
    return ""


def test_the_first_checkpoint_is_proven_and_no_other(folders: Path):
    cases = {"sharded": (Lora(r=4, alpha=8), 3), "prompt": (PromptTuning(tokens=5), 0)}
    for name, (adapter, stage) in cases.items():
        first, last = run_ranks(2, _train, folders, name, adapter, stage)
        assert 0.0 <= first["proven_within"] < 1e-4
        assert "proven_within" not in last


def test_another_adapter_than_the_trained_one_is_not_published(folders: Path):
    said = run_ranks(1, _spoil, folders)
    assert "its logits differ by" in said
    assert not list((folders / "spoilt" / "checkpoints").glob("step_*"))


def test_what_did_not_move_is_named():
    from adapters.checkpoint import TrainerState, checksum

    values = {"a.lora_A": torch.ones(2, 2), "a.lora_B": torch.zeros(2, 2)}
    first = {name: checksum(tensor) for name, tensor in values.items()}
    state = TrainerState(step=2, master=values, optimizer_name="adamw", optimizer={})
    with pytest.raises(AdapterError, match="nothing in it changed in 2 steps"):
        check_moved(state, first)
    moved = dataclasses.replace(state, master={**values, "a.lora_A": torch.full((2, 2), 1.5)})
    check_moved(moved, first)  # too early to tell
    later = dataclasses.replace(moved, step=4)
    with pytest.raises(AdapterError, match=r"1 of its 2 tensors .* among them a\.lora_B"):
        check_moved(later, first)
