"""The losses of a plain PyTorch + PEFT loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import jobs
from support.plain_loop import plain_losses
from support.ranks import run_ranks


def test_the_tiny_model_trains_like_a_plain_loop(folders: Path):
    recipe = jobs.recipe()
    found = run_ranks(2, jobs.train, folders, "reference", recipe)
    expected = plain_losses(recipe, folders / "llama", folders / "prepared", steps=6)
    assert found["losses"] == pytest.approx(expected, rel=1e-5)
    assert expected[-1] < expected[0]
