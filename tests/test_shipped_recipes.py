"""The shipped recipes with their real models and data: what the README promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from launcher.samples import catalogue
from recipes.load import load
from recipes.storage import default_cache
from support.measured import assert_as_planned
from support.plain_loop import plain_losses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SHOAL = str(Path(sys.executable).parent / "shoal")


def shoal(folder: Path, *arguments: str) -> str:
    found = subprocess.run(
        [SHOAL, *arguments], cwd=folder, capture_output=True, text=True, timeout=1200
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = Path(default_cache())
    for name in catalogue.names():
        catalogue.make(name, cache, lambda text: None)
    return tmp_path_factory.mktemp("shipped")


@pytest.fixture(scope="module")
def quickstart(workplace: Path) -> str:
    return shoal(workplace, "run", "quickstart")


def scores(run: Path, when: str) -> dict[str, float]:
    found: dict[str, float] = json.loads((run / "evaluation" / f"{when}.json").read_text())[
        "scores"
    ]
    return found


def test_the_quickstart_learns_to_tell_reviews_apart(workplace: Path, quickstart: str):
    run = workplace / "runs" / "quickstart"
    before, after = scores(run, "before"), scores(run, "after")
    assert before["rows"] == after["rows"] == 100
    assert after["accuracy"] >= 0.89
    assert after["accuracy"] - before["accuracy"] >= 0.19
    assert "Asked:" in quickstart


def test_the_quickstart_is_what_a_plain_loop_does(workplace: Path, quickstart: str):
    run = workplace / "runs" / "quickstart"
    cache = Path(default_cache())
    recipe = load(run / "recipe.yaml").recipe
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    prepared = Path(next(event["folder"] for event in events if event["event"] == "prepared"))
    expected = plain_losses(recipe, cache / "samples" / "smollm2-135m-instruct", prepared, steps=8)
    lines = (run / "metrics.jsonl").read_text().splitlines()[:8]
    assert [json.loads(line)["loss"] for line in lines] == pytest.approx(expected, rel=1e-5)


def test_a_checkpoint_is_small(workplace: Path, quickstart: str):
    checkpoint = workplace / "runs" / "quickstart" / "checkpoints" / "step_000040"
    trained = sum(
        tensor.numel() * 4
        for tensor in load_file(checkpoint / "adapter" / "adapter_model.safetensors").values()
    )
    total = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
    assert total <= 1.05 * 4 * trained  # adapter, master and two moments, all float32


def test_the_quickstart_took_what_was_planned(workplace: Path, quickstart: str):
    assert_as_planned(workplace / "runs" / "quickstart")
    assert "host memory, worker" in shoal(workplace, "plan", "runs/quickstart")


@pytest.mark.exhaustive
def test_a_second_quickstart_prepares_nothing(workplace: Path, quickstart: str):
    """Under the stage that shards the base; it, too, takes what was planned."""
    again = shoal(
        workplace, "run", "quickstart", "name=sharded", "zero.stage=3", "train.steps=3",
        "evaluate.before=false", "evaluate.after=false", "checkpoint.prove=false",
    )  # fmt: skip
    assert "Data was prepared before, nothing to do: 320 training samples" in again
    assert_as_planned(workplace / "runs" / "sharded")


def test_chinese_reviews(workplace: Path):
    said = shoal(workplace, "run", "reviews_zh")
    assert "duplicate" in said
    run = workplace / "runs" / "reviews_zh"
    assert scores(run, "before")["accuracy"] < 0.6
    assert scores(run, "after")["accuracy"] >= 0.80
