"""Sequences that are longer than a base can take, or than it was made for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from launcher.positions import Positions, check_here, check_length, positions_of
from recipes.adapter import PromptTuning
from recipes.base import Base
from recipes.data import Data, Source
from recipes.errors import RecipeError
from recipes.recipe import Recipe
from recipes.storage import Storage
from recipes.train import Train


def base(folder: Path, tensor: str, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({tensor: np.zeros((2, 2), np.float32)}, folder / "model.safetensors")
    return folder


LLAMA = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("tensor", "config", "expected"),
    [
        ("bert.embeddings.position_embeddings.weight", {"max_position_embeddings": 512}, 512),
        ("transformer.wpe.weight", {"n_positions": 1024}, 1024),
        ("model.decoder.embed_positions.weight", {"max_position_embeddings": 2048}, 2048),
        (
            "roberta.embeddings.position_embeddings.weight",
            {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1},
            512,
        ),
    ],
)
def test_learnt_positions(tmp_path: Path, tensor: str, config: dict[str, Any], expected: int):
    found = positions_of(base(tmp_path, tensor, **config))
    assert found == Positions(count=expected, are_learnt=True)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096),
        # Stretched: the number is that of before, or already that of after.
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 4}}, 8192),
        (
            {
                "max_position_embeddings": 131_072,
                "rope_scaling": {"factor": 8.0, "original_max_position_embeddings": 8192},
            },
            131_072,
        ),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_theta": 1e4}}, 2048),
    ],
)
def test_positions_that_are_computed(tmp_path: Path, config: dict[str, Any], expected: int):
    assert positions_of(base(tmp_path, LLAMA, **config)) == Positions(
        count=expected, are_learnt=False
    )


def test_a_base_that_names_no_number(tmp_path: Path):
    assert positions_of(base(tmp_path, LLAMA, model_type="bloom")) is None


def test_no_more_is_refused_and_more_than_it_was_made_for_is_told(tmp_path: Path):
    learnt = base(tmp_path / "learnt", "transformer.wpe.weight", n_positions=64)
    rotary = base(tmp_path / "rotary", LLAMA, max_position_embeddings=64)
    told: list[str] = []

    def check(folder: Path, length: int, **changes: Any) -> None:
        data = Data(train=[Source(path="a.jsonl")], sequence_length=length)
        chosen = Recipe(name="r", base=Base(source=str(folder)), data=data, train=Train(steps=1))
        chosen = dataclasses.replace(chosen, storage=Storage(cache=str(tmp_path)), **changes)
        check_length(chosen, folder, told.append)
        check_here(chosen, told.append)  # the same, as the base lies here

    check(learnt, 64)
    check(rotary, 64)
    assert told == []
    with pytest.raises(
        RecipeError,
        match=r"data.sequence_length = 65: the base has learnt 64 positions, and cannot take more. "
        r"Set data.sequence_length=64;",
    ):
        check(learnt, 65)
    with pytest.raises(RecipeError, match=r"and 8 virtual .* Set data.sequence_length=56;"):
        check(learnt, 57, adapter=PromptTuning(tokens=8))
    check(rotary, 65)
    assert len(told) == 2
    assert told[0].startswith("data.sequence_length = 65: the base was made for 64 tokens. It can")
    elsewhere = Recipe(
        name="r",
        base=Base(source=str(tmp_path / "nowhere")),
        data=Data(train=[]),
        train=Train(steps=1),
        storage=Storage(cache=str(tmp_path)),
    )
    check_here(elsewhere, told.append)  # nothing is known of it yet
    assert len(told) == 2
