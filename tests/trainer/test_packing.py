"""Packed samples see only themselves, padding changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from support import tiny
from trainer.batch import collate
from trainer.kernels import Kernels
from trainer.loss import losses_of
from trainer.shards import IGNORED, Row

PLAIN = Kernels(attention="sdpa", fused=False, fused_loss=False)


def rows_of(folder: Path, packs: list[list[int]], made: list) -> list[Row]:
    rows = [tiny.row([made[i] for i in pack], pack[0]) for pack in packs]
    split = tiny.split_of(folder / f"{len(packs)}", rows)
    return [split[index] for index in range(len(split))]


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request: pytest.FixtureRequest, folders: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(
        folders / "llama", dtype=torch.float32, attn_implementation=request.param
    ).eval()


@torch.no_grad()
def token_losses(model: torch.nn.Module, rows: list[Row]) -> list[float]:
    """Loss of every supervised token, row by row."""
    batch = collate(rows, pad_token_id=0)
    _, logits = losses_of(model, batch, task="causal_lm", kernels=PLAIN)
    learnt = batch.targets != IGNORED
    return torch.nn.functional.cross_entropy(
        logits[learnt], batch.targets[learnt], reduction="none"
    ).tolist()


def test_packed_and_alone_have_the_same_token_losses(model: torch.nn.Module, tmp_path: Path):
    made = tiny.samples(7)
    alone = [
        loss
        for row in rows_of(tmp_path, [[i] for i in range(7)], made)
        for loss in token_losses(model, [row])
    ]
    packs = [[0, 1, 2], [3], [4, 5, 6]]
    packed = token_losses(model, rows_of(tmp_path, packs, made))  # three rows, two of them padded
    assert packed == pytest.approx(alone, rel=1e-5)


def test_the_order_inside_a_pack_changes_nothing_else(model: torch.nn.Module, tmp_path: Path):
    """Would fail if a sample saw the one before it: that one is another here."""
    made = tiny.samples(3)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = token_losses(model, rows_of(tmp_path / "a", [[0, 2]], made))
    second = token_losses(model, rows_of(tmp_path / "b", [[1, 2]], made))
    own = len(made[2][0]) // 3
    assert first[-own:] == pytest.approx(second[-own:], rel=1e-5)


def test_a_batch_keeps_samples_apart_and_counts_over_padding(tmp_path: Path):
    made = [([6, 7, 8], [IGNORED, 7, 8]), ([9, 10], [IGNORED, 10])]
    batch = collate(rows_of(tmp_path, [[0, 1], [1]], made), pad_token_id=0)
    assert batch.input_ids.tolist() == [[6, 7, 8, 9, 10], [9, 10, 0, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]]
    assert batch.attention_mask.tolist() == [[1] * 5, [1, 1, 0, 0, 0]]
    # The target of a position is the next token; nothing leads from one sample to the next.
    assert batch.columns.tolist() == [0, 1, 3]
    assert batch.targets.tolist() == [[7, 8, 10], [10, IGNORED, IGNORED]]
    assert batch.input_ids.dtype == torch.int64
    # Flash attention is told where the samples of all rows begin, padding with the last of a row.
    assert batch.boundaries.tolist() == [0, 3, 5, 10]
    assert batch.boundaries.dtype == torch.int32
    assert batch.longest == 5
    assert batch.num_tokens == 7


def test_a_batch_without_supervised_tokens_is_zero_and_has_a_gradient(
    folders: Path, tmp_path: Path
):
    model = AutoModelForCausalLM.from_pretrained(folders / "llama", dtype=torch.float32)
    rows = rows_of(tmp_path, [[0]], [([6, 7, 8], [IGNORED] * 3)])
    losses, _ = losses_of(model, collate(rows, pad_token_id=0), task="causal_lm", kernels=PLAIN)
    assert losses.tolist() == [[0.0]]
    losses.sum().backward()
    assert all(p.grad is None or not np.any(p.grad.numpy()) for p in model.parameters())
