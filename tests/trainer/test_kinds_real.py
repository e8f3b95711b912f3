"""Kinds of adapter on the small real model: each learns, goes on exactly, takes the disk that was
planned, and PEFT alone opens and merges it. CI tries some that are kept or merged in a way
of their own; test_kinds.py has them all on a tiny model."""

from __future__ import annotations

import dataclasses
import gc
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from adapters.checkpoint_folder import folder_of, total_bytes
from adapters.proof import ask
from launcher.plan.adapter_shape import adapter_shape
from launcher.plan.base_shape import read_base_shape
from launcher.plan.disk import checkpoint_bytes
from launcher.samples import catalogue
from recipes.adapter import (
    Adalora,
    Adapter,
    Boft,
    Full,
    Ia3,
    LnTuning,
    Loha,
    Lokr,
    Lora,
    Oft,
    OtherPeft,
    PrefixTuning,
    PromptTuning,
    PTuning,
    Unfreeze,
    Vera,
    VirtualTokens,
)
from recipes.recipe import Recipe
from recipes.storage import default_cache
from support import jobs, tiny
from support.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

STEPS, SAVED = 4, 2
IDS = tuple(range(100, 116))
NEAR = {"last_layers": 2}
# With the learning rates that fit each: what trains few numbers, or none at the start, needs more.
KINDS: dict[str, tuple[Adapter, float]] = {
    "lora": (Lora(r=8, alpha=16, **NEAR), 1e-3),
    "dora": (Lora(r=8, alpha=16, dora=True, **NEAR), 1e-3),
    "pissa": (Lora(r=8, alpha=16, initialization="pissa", **NEAR), 1e-3),
    "adalora": (Adalora(r=4, first_r=8, **NEAR), 1e-2),
    "loha": (Loha(r=4, **NEAR), 5e-3),
    "lokr": (Lokr(r=4, **NEAR), 5e-3),
    "ia3": (Ia3(), 1e-2),
    "oft": (Oft(block_size=16, **NEAR), 1e-3),
    "boft": (Boft(**NEAR), 1e-3),
    "vera": (Vera(r=64, **NEAR), 1e-2),
    "ln_tuning": (LnTuning(), 1e-3),
    "unfreeze": (Unfreeze(last_layers=1), 1e-4),
    "full": (Full(), 5e-5),
    "prompt_tuning": (PromptTuning(tokens=8, text="Go on with the text"), 5e-2),
    "p_tuning": (PTuning(tokens=8), 1e-3),
    "prefix_tuning": (PrefixTuning(tokens=8), 1e-2),
    "hra": (OtherPeft(method="HRA", targets=[r"re:.*layers\.2[89]\..*\.[qv]_proj"]), 1e-2),
}


TRIED_BY_CI = ("lora", "adalora", "unfreeze", "prefix_tuning")
NAMES = [
    pytest.param(name, marks=() if name in TRIED_BY_CI else pytest.mark.exhaustive)
    for name in KINDS
]


@pytest.fixture(scope="module")
def model() -> Path:
    name, cache = "smollm2-135m-instruct", Path(default_cache())
    catalogue.make(name, cache, lambda text: None)
    return catalogue.path(name, cache)


@pytest.fixture(scope="module")
def root(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight rows, so that every step sees the same."""
    root = tmp_path_factory.mktemp("real")
    rows = [tiny.row([sample], number) for number, sample in enumerate(tiny.samples(8))]
    tiny.write_prepared(root / "prepared", rows)
    (root / "base").symlink_to(model)
    return root


def recipe_of(name: str) -> Recipe:
    adapter, rate = KINDS[name]
    plain = jobs.recipe(name=name, adapter=adapter)
    train = dataclasses.replace(
        plain.train, steps=STEPS, learning_rate=rate, schedule="constant", warmup_steps=0
    )
    kept = dataclasses.replace(plain.checkpoint, every_steps=SAVED)
    return dataclasses.replace(plain, train=train, checkpoint=kept)


Losses = tuple[list[float], list[float]]
"""Of a run, and of its second half, gone on with from its checkpoint."""


@pytest.fixture(scope="module")
def losses(root: Path, request: pytest.FixtureRequest) -> dict[str, Losses]:
    """Of each kind that is asked for, one after another in the same process."""
    asked = [
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path
    ]
    return run_ranks(1, _train_all, root, asked)


def _train_all(root: Path, names: list[str]) -> dict[str, Losses]:
    return {name: _train_twice(root, name) for name in names}


def _train_twice(root: Path, name: str) -> Losses:
    whole = jobs.train(root, name, recipe_of(name), base="base")
    gc.collect()
    half = folder_of(root / name / "checkpoints", SAVED)
    again = jobs.train(root, f"{name}_again", recipe_of(name), base="base", resume_from=half)
    gc.collect()
    shutil.rmtree(root / f"{name}_again")
    shutil.rmtree(half)
    return whole["losses"], again["losses"]


def _logits(model: object) -> torch.Tensor:
    with torch.no_grad():
        return ask(model, IDS, torch.device("cpu"), "causal_lm")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_a_kind_from_its_first_step_to_plain_peft(
    root: Path, model: Path, losses: dict[str, Losses], name: str
):
    whole, again = losses[name]
    assert whole[-1] < whole[0]
    assert again == whole[SAVED:]
    folder = folder_of(root / name / "checkpoints", STEPS)
    adapter, _ = KINDS[name]
    if not isinstance(adapter, OtherPeft):
        shape = adapter_shape(read_base_shape(model, task="causal_lm", num_labels=2), adapter)
        planned = checkpoint_bytes(shape, "adamw")
        assert planned == pytest.approx(total_bytes(folder), rel=0.02)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    untrained = _logits(base)
    opened = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
    logits = _logits(opened)
    assert (logits[-len(IDS) :] - untrained).abs().max() > 1e-3
    if not isinstance(adapter, VirtualTokens):
        merged = opened.merge_and_unload()
        torch.testing.assert_close(_logits(merged), logits, rtol=1e-4, atol=1e-4)
    shutil.rmtree(root / name)
