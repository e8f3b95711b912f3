"""Every kind of adapter: it learns, the same under every stage; it goes on exactly; PEFT alone
opens and merges what it saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from adapters.checkpoint_folder import folder_of
from recipes.adapter import VirtualTokens
from recipes.compatibility import forbidden, kind_of
from recipes.recipe import Recipe
from recipes.schema import kinds
from recipes.zero import Zero
from support import jobs
from support.adapters import ADAPTERS
from support.asked import divide_everything, ids, train_and_ask
from support.ranks import run_ranks

STAGES = (0, 1, 2, 3)
ALLOWED = {
    name: [stage for stage in STAGES if forbidden(kind_of(adapter), "none", stage) is None]
    for name, adapter in ADAPTERS.items()
}
# LoRA under every stage; the others under the one that shards the most.
CELLS = [
    (name, stage)
    for name, stages in ALLOWED.items()
    for stage in (stages if name == "lora" else stages[-1:])
]
REST = [
    (name, stage)
    for name, stages in ALLOWED.items()
    for stage in stages
    if (name, stage) not in CELLS
]
LEAST_SHARDED = [cell for cell in REST if cell[1] == ALLOWED[cell[0]][0]]
# A matrix that is inverted (OFT) or taken apart (PiSSA) makes more of rounding, which is another on
# each kind of processor: 1.2e-4 after four steps was seen.
CLOSE = 1e-3


def recipe_of(cell: tuple[str, int]) -> Recipe:
    name, stage = cell
    return jobs.recipe(adapter=ADAPTERS[name], zero=Zero(stage=stage))


@pytest.fixture(scope="module")
def runs(folders: Path) -> dict:
    """Two workers, each cell."""
    return run_ranks(2, train_and_ask, folders, {cell: recipe_of(cell) for cell in CELLS}, "kinds")


def test_all_kinds_are_here():
    assert {adapter.kind for adapter in ADAPTERS.values()} == set(kinds("adapter"))


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_kind_learns(runs: dict, name: str):
    """LoRA the same under every stage; a test below compares those of the others."""
    losses = [run["losses"] for (kind, _), run in runs.items() if kind == name]
    assert losses[0][-1] < losses[0][0]
    for others in losses[1:]:
        assert others == pytest.approx(losses[0], rel=CLOSE)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_peft_alone_opens_and_merges_it(folders: Path, runs: dict, cell: tuple[str, int]):
    base = AutoModelForCausalLM.from_pretrained(folders / "llama", dtype=torch.float32)
    with torch.no_grad():
        untrained = base(input_ids=ids()).logits
        adapter = Path(runs[cell]["checkpoint"]) / "adapter"
        model = PeftModel.from_pretrained(base, str(adapter)).eval()
        logits = model(input_ids=ids()).logits
        torch.testing.assert_close(logits, runs[cell]["logits"], rtol=1e-4, atol=1e-4)
        # Those of the text; virtual tokens stand before it.
        assert (logits[:, -untrained.shape[1] :] - untrained).abs().max() > 1e-3
        if isinstance(ADAPTERS[cell[0]], VirtualTokens):
            return  # nothing of the base is changed that could be merged
        merged = model.merge_and_unload()(input_ids=ids()).logits
    torch.testing.assert_close(merged, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_every_tensor_has_moved(runs: dict, cell: tuple[str, int]):
    first, last = (
        load_file(
            folder_of(Path(runs[cell]["checkpoint"]).parent, step)
            / "trainer_state"
            / "state.safetensors"
        )
        for step in (3, 6)
    )
    masters = [name for name in last if name.startswith("master/")]
    assert masters
    for name in masters:
        assert last[name].isfinite().all()
        is_lowered = ".lora_E." in name and not last[name].any()  # a rank that was taken away
        assert is_lowered or not torch.equal(first[name], last[name]), name


@pytest.mark.parametrize(
    "cells",
    [LEAST_SHARDED, pytest.param(REST, marks=pytest.mark.exhaustive)],
    ids=["least sharded", "all"],
)
def test_other_stages_agree_too(folders: Path, runs: dict, cells: list[tuple[str, int]]):
    found = run_ranks(2, train_and_ask, folders, {cell: recipe_of(cell) for cell in cells}, "rest")
    for cell in cells:
        most_sharded = runs[cell[0], ALLOWED[cell[0]][-1]]["losses"]
        assert found[cell]["losses"] == pytest.approx(most_sharded, rel=CLOSE), cell


def test_every_kind_goes_on_bit_by_bit(folders: Path, runs: dict):
    """Under the stage that shards it the most."""
    cells = list({name: (name, stage) for name, stage in CELLS}.values())
    again = run_ranks(2, _resume, folders, runs, cells)
    for cell in cells:
        assert again[cell]["losses"] == runs[cell]["losses"][3:], cell
        assert _tensors(again[cell]) == _tensors(runs[cell]), cell


def _resume(folders: Path, runs: dict, cells: list[tuple[str, int]]) -> dict:
    divide_everything()
    return {
        cell: jobs.train(
            folders,
            f"kinds_again_{number}",
            recipe_of(cell),
            resume_from=folder_of(Path(runs[cell]["checkpoint"]).parent, 3),
        )
        for number, cell in enumerate(cells)
    }


def _tensors(run: dict) -> dict[str, bytes]:
    file = Path(run["checkpoint"]) / "adapter" / "adapter_model.safetensors"
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(file).items()}
