"""Runs on the tiny model that also tell what the model, as it was trained, answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from recipes.recipe import Recipe
from support import jobs


def ids() -> torch.Tensor:
    """Two rows of ten tokens to ask for logits."""
    return torch.arange(6, 26).reshape(2, 10)


def train_and_ask(root: Path, chosen: Mapping[Any, Recipe], label: str = "asked") -> dict[Any, Any]:
    """`jobs.train` of each recipe, one after another in the same processes; `logits` of `ids()`
    by the engine beside the losses."""
    import trainer.worker as worker

    divide_everything()
    found = {}
    logits: list[torch.Tensor] = []
    evaluate = worker._Rank.evaluate

    def evaluate_and_ask(rank: worker._Rank, when: str, step: int) -> object:
        rank.engine.model.eval()
        with torch.no_grad():
            logits.append(rank.engine.deepspeed(input_ids=ids(), use_cache=False).logits)
        return evaluate(rank, when, step)

    worker._Rank.evaluate = evaluate_and_ask  # type: ignore[method-assign]
    try:
        for number, (key, recipe) in enumerate(chosen.items()):
            name = f"{label}_{number}"
            run = jobs.train(root, name, dataclasses.replace(recipe, name=name))
            found[key] = {**run, "logits": logits.pop()}
    finally:
        worker._Rank.evaluate = evaluate  # type: ignore[method-assign]
    return found


def divide_everything() -> None:
    """From now on stage 3 keeps no parameter whole, as it would one of so small a model."""
    from trainer import zero_config

    real = zero_config._stage
    none_whole = {
        "stage3_param_persistence_threshold": 0,
        "stage3_max_live_parameters": 0,
        "stage3_max_reuse_distance": 0,
    }
    zero_config._stage = lambda recipe: {**real(recipe), **none_whole}
