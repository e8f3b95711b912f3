"""LoRA on the experts of a mixture: stacks of matrices that are no modules of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from recipes.adapter import Lora
from recipes.base import Base
from recipes.compatibility import FORBIDDEN, forbidden, kind_of
from recipes.recipe import Recipe, all_problems
from recipes.zero import Zero
from support import jobs, tiny
from support.asked import divide_everything, ids
from support.ranks import run_ranks

STACKS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
ADAPTER = Lora(r=4, alpha=8, targets=["q_proj"], target_parameters=STACKS)
CELLS = [
    (quantization, stage)
    for quantization in ("none", "nf4", "fp4", "int8")
    for stage in (0, 1, 2, 3)
    if forbidden(kind_of(ADAPTER), quantization, stage) is None
]


def recipe_of(quantization: str, stage: int) -> Recipe:
    base = Base(source="/tiny", dtype="float32", quantization=quantization)
    return jobs.recipe(adapter=ADAPTER, base=base, zero=Zero(stage=stage))


@pytest.fixture(scope="module")
def runs(folders: Path) -> dict:
    tiny.make_moe(folders / "moe")
    return run_ranks(2, _train, folders)


def _train(folders: Path) -> dict:
    return {
        (quantization, stage): jobs.train(
            folders, f"experts_{quantization}_{stage}", recipe_of(quantization, stage), base="moe"
        )
        for quantization, stage in CELLS
    }


def test_stages_agree(runs: dict):
    for quantization, stage in CELLS:
        losses = runs[quantization, stage]["losses"]
        assert losses[-1] < losses[0]
        assert losses == pytest.approx(runs[quantization, 0]["losses"], rel=1e-4), (
            quantization,
            stage,
        )


def test_peft_alone_opens_and_merges_it(folders: Path, runs: dict):
    base = AutoModelForCausalLM.from_pretrained(folders / "moe", dtype=torch.float32)
    with torch.no_grad():
        untrained = base(input_ids=ids()).logits
        adapter = Path(runs["none", 2]["checkpoint"]) / "adapter"
        model = PeftModel.from_pretrained(base, str(adapter)).eval()
        logits = model(input_ids=ids()).logits
        merged = model.merge_and_unload()(input_ids=ids()).logits
    assert (logits - untrained).abs().max() > 1e-3
    torch.testing.assert_close(merged, logits, rtol=1e-4, atol=1e-4)


def test_what_is_refused_fails(folders: Path, runs: dict):
    [entry] = [entry for entry in FORBIDDEN if "experts" in entry.kinds]
    [problem] = all_problems(recipe_of("none", entry.stages[0]))
    assert entry.why in problem.message
    with pytest.raises(Exception, match="parameter fetch queue"):
        run_ranks(2, _refused, folders, entry.stages[0])


def _refused(folders: Path, stage: int) -> None:
    divide_everything()
    jobs.train(folders, "experts_refused", recipe_of("none", stage), base="moe")
