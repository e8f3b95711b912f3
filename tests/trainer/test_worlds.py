"""The worker count and the ZeRO stage change nothing but rounding."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recipes.adapter import Lora
from recipes.base import Base
from support import jobs
from support.ranks import run_ranks

STAGES = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def alone(folders: Path) -> dict:
    """One worker, every stage: what the others are held against."""
    return run_ranks(1, _train_grouped, folders, "alone")


def _train_grouped(folders: Path, label: str) -> dict:
    return jobs.train_stages(folders, label, STAGES, chosen=jobs.grouped())


def test_stages_agree_on_one_worker(alone: dict):
    assert len(alone[0]["losses"]) == 6
    for stage in STAGES:
        assert alone[stage]["losses"] == pytest.approx(alone[0]["losses"], rel=1e-5)
        norms = [line["grad_norm"] for line in alone[stage]["lines"]]
        assert norms == pytest.approx([line["grad_norm"] for line in alone[0]["lines"]], rel=1e-4)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_agree(folders: Path, alone: dict, workers: int):
    """Three workers do not divide the four micro-batches of a step: some compute one that weighs
    nothing."""
    found = run_ranks(workers, _train_grouped, folders, f"workers{workers}")
    for stage in STAGES:
        assert found[stage]["losses"] == pytest.approx(alone[0]["losses"], rel=1e-4)
        assert found[stage]["after"]["scores"]["loss"] == pytest.approx(
            alone[0]["after"]["scores"]["loss"], rel=1e-4
        )


def test_a_new_head_and_dropout_agree(folders: Path):
    """A classification head that the base lacks begins the same everywhere, and dropout belongs to
    the micro-batch."""
    chosen = dataclasses.replace(
        jobs.recipe(),
        task="sequence_classification",
        adapter=Lora(r=4, alpha=8, dropout=0.2, targets=["query", "value"]),
    )
    options = {"chosen": chosen, "base": "bert", "prepared": "labelled"}
    one = run_ranks(1, _train_labels, folders, "labels1", options)
    two = run_ranks(2, _train_labels, folders, "labels2", options)
    for found in (one, two):
        for stage in (0, 2, 3):
            assert found[stage]["losses"] == pytest.approx(one[0]["losses"], rel=1e-4)
    assert 0.0 <= one[0]["after"]["scores"]["accuracy"] <= 1.0
    head = [name for name in load_file(_adapter(one[0]["checkpoint"])) if "classifier" in name]
    assert sorted(head) == [
        "base_model.model.classifier.bias",
        "base_model.model.classifier.weight",
    ]


def _train_labels(folders: Path, label: str, options: dict) -> dict:
    return jobs.train_stages(folders, label, [0, 2, 3], **options)


def test_bfloat16_keeps_adapters_float32(folders: Path):
    chosen = jobs.recipe(base=Base(source="/tiny", dtype="bfloat16"))
    found = run_ranks(2, _train_bfloat16, folders, chosen)
    for stage in STAGES:
        tensors = load_file(_adapter(found[stage]["checkpoint"]))
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
        # bfloat16 has 8 bits of mantissa: one part in 256.
        assert found[stage]["losses"] == pytest.approx(found[0]["losses"], rel=2e-2)


def _train_bfloat16(folders: Path, chosen: object) -> dict:
    return jobs.train_stages(folders, "bfloat16", STAGES, chosen=chosen)


def _adapter(checkpoint: str) -> Path:
    return Path(checkpoint) / "adapter" / "adapter_model.safetensors"
