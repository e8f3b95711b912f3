"""Parts of the base in host memory beside a GPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.base import Base
from recipes.recipe import Recipe
from recipes.zero import Zero
from support import jobs
from support.asked import divide_everything
from support.ranks import run_ranks

pytestmark = pytest.mark.gpu

PLAIN = Zero(stage=3)
OPTIONS = [
    Zero(stage=3, offload_parameters=True),
    Zero(stage=3, offload_parameters=True, offload_optimizer=True),
]
BASES = [("none", "float32"), ("none", "bfloat16"), ("nf4", "bfloat16")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gpu_zero_options")
    jobs.make_folders(root)
    return root


def train(folders: Path, label: str, recipe: Recipe, resume_from: Path | None) -> dict[str, Any]:
    """A run, and where the parts of its base lie."""
    import trainer.worker as worker

    divide_everything()
    places: set[str] = set()
    evaluate = worker._Rank.evaluate

    def look(rank: worker._Rank, when: str, step: int) -> object:
        frozen = [p for p in rank.engine.model.parameters() if not p.requires_grad]
        places.update(p.ds_tensor.device.type for p in frozen)
        return evaluate(rank, when, step)

    worker._Rank.evaluate = look  # type: ignore[method-assign]
    return {**jobs.train(folders, label, recipe, resume_from=resume_from), "places": places}


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("zero", OPTIONS, ids=str)
def test_offloaded_it_learns_the_same_and_goes_on_bit_by_bit(
    folders: Path, base: tuple[str, str], zero: Zero
) -> None:
    quantization, dtype = base
    chosen = jobs.recipe(
        base=Base(source="/tiny", dtype=dtype, quantization=quantization), zero=zero
    )
    label = f"{quantization}_{dtype}_{zero.offload_optimizer}"
    plain = dataclasses.replace(chosen, zero=PLAIN)
    expected = run_ranks(1, train, folders, f"{label}_plain", plain, None, device="cuda")
    found = run_ranks(1, train, folders, label, chosen, None, device="cuda")
    assert expected["places"] == {"cuda"}
    assert found["places"] == {"cpu"}
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    step_3 = Path(found["checkpoint"]).parent / "step_000003"
    again = run_ranks(1, train, folders, f"{label}_again", chosen, step_3, device="cuda")
    assert again["losses"] == found["losses"][3:]


def test_hpz_on_two_gpus(folders: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    plain = jobs.recipe(zero=PLAIN)
    near = jobs.recipe(zero=Zero(stage=3, hpz_size=2))
    expected = run_ranks(2, train, folders, "two_plain", plain, None, device="cuda")
    found = run_ranks(2, train, folders, "two_hpz", near, None, device="cuda")
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-4)
