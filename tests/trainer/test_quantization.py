"""Quantised bases: what is trained on them is the same under every stage, is saved without them,
goes on exactly, and opens with PEFT over a base that is quantised alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from adapters.checkpoint_folder import folder_of
from adapters.quantization import keep_as_stored, quantization_of
from recipes.adapter import VirtualTokens
from recipes.base import Base
from recipes.compatibility import FORBIDDEN, forbidden, kind_of
from recipes.recipe import Recipe, all_problems
from recipes.zero import Zero
from support import jobs
from support.adapters import ADAPTERS, named
from support.asked import divide_everything, ids, train_and_ask
from support.ranks import run_ranks

Cell = tuple[str, str, int]
QUANTIZATIONS = ("nf4", "fp4", "int8")
STAGES = (0, 1, 2, 3)


def cells(quantization: str, name: str) -> list[Cell]:
    """Those of one quantisation and kind that are allowed."""
    return [
        (quantization, name, stage)
        for stage in STAGES
        if forbidden(kind_of(ADAPTERS[name]), quantization, stage) is None
    ]


def highest() -> Iterator[Cell]:
    for quantization in QUANTIZATIONS:
        for name in ADAPTERS:
            yield from cells(quantization, name)[-1:]


# LoRA under every stage, and of what else there is the stage that shards the most.
TRIED = list(
    dict.fromkeys(
        [
            *(cell for quantization in QUANTIZATIONS for cell in cells(quantization, "lora")),
            *(cell for cell in highest() if cell[0] == "nf4"),
        ]
    )
)
REST = [
    cell
    for quantization in QUANTIZATIONS
    for name in ADAPTERS
    for cell in cells(quantization, name)
    if cell not in TRIED
]
# int8 goes ways of its own; fp4 is nf4 with other values. The stages that shard least and most.
INT8 = [
    cell
    for cell in REST
    if cell[0] == "int8" and cell in (cells(*cell[:2])[0], cells(*cell[:2])[-1])
]


def recipe_of(cell: Cell) -> Recipe:
    quantization, name, stage = cell
    return jobs.recipe(
        base=Base(source="/tiny", dtype="float32", quantization=quantization),
        adapter=ADAPTERS[name],
        zero=Zero(stage=stage),
    )


@pytest.fixture(scope="module")
def runs(folders: Path) -> dict:
    """Two workers, each cell."""
    return run_ranks(
        2, train_and_ask, folders, {cell: recipe_of(cell) for cell in TRIED}, "quantized"
    )


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_stages_and_workers_agree(folders: Path, runs: dict, quantization: str):
    """With what one process computes, and not with what the plain base gives."""
    alone = run_ranks(
        1, jobs.train, folders, f"{quantization}_1", recipe_of((quantization, "lora", 0))
    )
    found = [run["losses"] for cell, run in runs.items() if cell[:2] == (quantization, "lora")]
    assert len(found) == len(cells(quantization, "lora"))
    for losses in found:
        assert losses == pytest.approx(alone["losses"], rel=1e-4)
    plain = run_ranks(
        1, jobs.train, folders, f"{quantization}_plain", recipe_of(("none", "lora", 0))
    )
    assert alone["losses"][0] != pytest.approx(plain["losses"][0], rel=1e-4)


@pytest.mark.parametrize("cell", TRIED, ids=str)
def test_it_learns_and_saves_nothing_of_the_base(runs: dict, cell: Cell):
    losses = runs[cell]["losses"]
    assert losses[-1] < losses[0]
    folder = Path(runs[cell]["checkpoint"])
    plain_dtypes = {torch.float32}
    for name in ("adapter/adapter_model.safetensors", "trainer_state/state.safetensors"):
        tensors = load_file(folder / name)
        assert {tensor.dtype for tensor in tensors.values()} <= plain_dtypes
        assert not [key for key in tensors if "absmax" in key or "quant" in key or "SCB" in key]


@pytest.mark.parametrize("cell", [cell for cell in TRIED if cell in {*highest()}], ids=str)
def test_peft_opens_it_over_the_same_base(folders: Path, runs: dict, cell: Cell):
    recipe = recipe_of(cell)
    quantization = quantization_of(recipe.base, torch.device("cpu"))
    assert quantization is not None
    base = AutoModelForCausalLM.from_pretrained(
        folders / "llama", dtype=torch.float32, **quantization.options(torch.float32)
    )
    keep_as_stored(base)
    with torch.no_grad():
        model = PeftModel.from_pretrained(base, str(Path(runs[cell]["checkpoint"]) / "adapter"))
        logits = model.eval()(input_ids=ids()).logits
    torch.testing.assert_close(logits, runs[cell]["logits"], rtol=1e-4, atol=1e-4)


def test_it_goes_on_bit_by_bit(folders: Path, runs: dict):
    tried = [("nf4", "lora", 3), ("fp4", "lora", 0), ("int8", "lora", 2)]
    again = run_ranks(2, _resume, folders, runs, tried)
    for cell in tried:
        assert again[cell]["losses"] == runs[cell]["losses"][3:], cell


def _resume(folders: Path, runs: dict, tried: list[Cell]) -> dict:
    divide_everything()
    return {
        cell: jobs.train(
            folders,
            f"quantized_again_{number}",
            recipe_of(cell),
            resume_from=folder_of(Path(runs[cell]["checkpoint"]).parent, 3),
        )
        for number, cell in enumerate(tried)
    }


def test_a_base_that_is_evaluated_can_be_trained_on(folders: Path, runs: dict):
    """Evaluating between steps, which on some CPUs packs weights anew, changes no later loss."""
    chosen = recipe_of(("nf4", "lora", 0))
    measured = dataclasses.replace(chosen.evaluate, every_steps=2)
    found = run_ranks(
        2, jobs.train, folders, "measured", dataclasses.replace(chosen, evaluate=measured)
    )
    assert found["losses"] == runs["nf4", "lora", 0]["losses"]


@pytest.mark.parametrize(
    "tried", [INT8, pytest.param(REST, marks=pytest.mark.exhaustive)], ids=["int8", "all"]
)
def test_other_cells_agree_too(folders: Path, runs: dict, tried: list[Cell]):
    found = run_ranks(2, train_and_ask, folders, {cell: recipe_of(cell) for cell in tried}, "rest")
    together = {**runs, **found}
    for cell in tried:
        # Few virtual tokens hardly learn in six steps, no two of which see the same rows.
        is_prompt = isinstance(ADAPTERS[cell[1]], VirtualTokens)
        assert is_prompt or found[cell]["losses"][-1] < found[cell]["losses"][0], cell
        first = together[cells(*cell[:2])[0]]["losses"]
        assert found[cell]["losses"] == pytest.approx(first, rel=1e-4), cell


def test_what_is_refused_says_what_would_do(folders: Path):
    for entry in FORBIDDEN:
        # Experts are of another base: test_experts.py.
        for kind in [kind for kind in entry.kinds or ("lora",) if kind != "experts"]:
            for quantization in entry.quantizations or ("none",):
                cell = (quantization, named(kind), entry.stages[0])
                [problem] = all_problems(recipe_of(cell))
                assert entry.why in problem.message
                assert problem.hint == entry.nearest


def test_what_is_refused_fails(folders: Path):
    """Each refusal is for a reason: once the libraries can, this says so.

    OLoRA packs what is left of a weight again, which is another base; of PEFT's other methods some
    can, and some only seem to.
    """
    tried = [
        (quantization, named(kind), entry.stages[0])
        for entry in FORBIDDEN
        if entry.kinds
        for kind in entry.kinds
        if kind not in ("olora", "peft", "experts")
        for quantization in entry.quantizations or ("none",)
    ]
    found = run_ranks(1, _errors, folders, tried)
    assert [cell for cell, error in found.items() if error is None] == []
    assert run_ranks(1, _whole_bytes, folders) > 0


_FAILS = (RuntimeError, AttributeError, LookupError, AssertionError, TypeError, ValueError)


def _errors(folders: Path, tried: list[Cell]) -> dict[Cell, str | None]:
    found: dict[Cell, str | None] = {}
    divide_everything()
    for number, cell in enumerate(tried):
        try:
            jobs.train(folders, f"refused_{number}", recipe_of(cell))
            found[cell] = None
        except _FAILS as error:
            found[cell] = repr(error)
    return found


def _whole_bytes(folders: Path) -> int:
    """Bytes of whole 8-bit weights beside the parts of stage 3."""
    import trainer.worker as worker

    divide_everything()
    kept = []
    evaluate = worker._Rank.evaluate

    def look(rank: worker._Rank, when: str, step: int) -> object:
        for module in rank.engine.model.modules():
            if (whole := getattr(getattr(module, "state", None), "CB", None)) is not None:
                kept.append(whole.numel())
        return evaluate(rank, when, step)

    worker._Rank.evaluate = look  # type: ignore[method-assign]
    jobs.train(folders, "whole", recipe_of(("int8", "lora", 3)))
    return sum(kept)
