"""Plan against measured: the small real model, on two workers under every ZeRO stage.

CI tries one here and one in tests/test_shipped_recipes.py, on a run that is made anyhow.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launcher.samples import catalogue
from recipes.storage import default_cache
from support.measured import assert_as_planned

pytestmark = pytest.mark.slow

SHOAL = str(Path(sys.executable).parent / "shoal")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("smollm2-135m-instruct", "movie_reviews"):
        catalogue.make(name, Path(default_cache()), lambda text: None)
    return tmp_path_factory.mktemp("measured")


def shoal(folder: Path, *arguments: str) -> str:
    found = subprocess.run(
        [SHOAL, *arguments], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


# Products with 4-bit weights take seconds on a CPU: short rows, few of them, none to measure on.
SHAPES = {
    "none": [],
    "nf4": [
        "data.sequence_length=128", "train.global_batch_size=2", "train.micro_batch_size=1",
        "evaluate.after=false",
    ],
}  # fmt: skip


CASES = [
    pytest.param(
        quantization,
        stage,
        marks=() if (quantization, stage) == ("nf4", 3) else pytest.mark.exhaustive,
    )
    for quantization in SHAPES
    for stage in (0, 1, 2, 3)
]


@pytest.mark.parametrize(("quantization", "stage"), CASES)
def test_the_plan_is_what_the_run_takes(workplace: Path, quantization: str, stage: int):
    name = f"{quantization}_stage_{stage}"
    # Measuring takes the most of these runs: under the first and the last stage only.
    shorter = ["evaluate.after=false"] if stage in (1, 2) else []
    shoal(
        workplace, "run", "quickstart", f"name={name}", f"zero.stage={stage}", "train.steps=3",
        "evaluate.before=false", "checkpoint.prove=false", f"base.quantization={quantization}",
        *shorter, *SHAPES[quantization],
    )  # fmt: skip
    assert_as_planned(workplace / "runs" / name)
    assert "host memory, worker" in shoal(workplace, "plan", f"runs/{name}")
