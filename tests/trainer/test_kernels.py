"""Which kernels are chosen. What they compute: tests/gpu."""

from __future__ import annotations

import pytest
import torch

from recipes.base import Base
from trainer import kernels
from trainer.kernels import choose_kernels

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_has", lambda package: True)


@pytest.mark.parametrize(
    ("task", "dtype", "device", "attention", "fused"),
    [
        ("causal_lm", torch.bfloat16, GPU, "flash_attention_2", True),
        ("causal_lm", torch.float32, GPU, "sdpa", True),
        ("sequence_classification", torch.bfloat16, GPU, "sdpa", False),
        ("causal_lm", torch.bfloat16, CPU, "sdpa", False),
    ],
)
def test_auto(task: str, dtype: torch.dtype, device: torch.device, attention: str, fused: bool):
    chosen = choose_kernels(Base(source="/base"), task, dtype, device)
    assert (chosen.attention, chosen.fused) == (attention, fused)
    assert chosen.varlen is (attention == "flash_attention_2")


def test_the_recipe_has_the_last_word():
    plain = Base(source="/base", attention="eager", kernels="torch")
    chosen = choose_kernels(plain, "causal_lm", torch.bfloat16, GPU)
    assert (chosen.attention, chosen.fused, chosen.varlen) == ("eager", False, False)


def test_what_is_not_installed_is_not_chosen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "_has", lambda package: False)
    chosen = choose_kernels(Base(source="/base"), "causal_lm", torch.bfloat16, GPU)
    assert (chosen.attention, chosen.fused) == ("sdpa", False)
