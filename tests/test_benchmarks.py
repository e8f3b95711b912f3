"""The benchmarks themselves: what they count, and that they run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PROGRAM = """
import json
from benchmarks.gpu import Shape, measure

shape = Shape(vocabulary=512, hidden=64, intermediate=96, layers=2, heads=4, kv_heads=2)
figures = measure(
    shape,
    sequence_length=128,
    micro_batch_size=2,
    accumulation=2,
    steps=5,
    gradient_checkpointing=True,
)
print("FIGURES" + json.dumps(figures))
"""


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_gpu_benchmark_trains(device: str):
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "DS_ACCELERATOR": device, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    line = next(line for line in found.stdout.splitlines() if line.startswith("FIGURES"))
    figures = json.loads(line.removeprefix("FIGURES"))
    assert figures["tokens_per_s"] > 0
    # Seven linear modules a layer: r x (in + out) each.
    assert figures["adapter_parameters"] == 2 * 16 * (2 * 128 + 2 * 96 + 3 * 160)
    assert ("peak_memory_gib" in figures) is (device == "cuda")


def test_the_operations_of_a_step():
    from benchmarks.gpu import Shape

    # 7.50 billion numbers in matrices, four operations each, and causal attention.
    assert Shape().flops_per_token(4096, 0) == 4 * 7_504_658_432 + 6 * 32 * 4096 * 4096


def test_results_are_whole():
    """Every figure in the repository says what it was measured on."""
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        assert result.keys() == {"benchmark", "date", "machine", "figures"}, file.name
        assert result["machine"]["versions"]["torch"]
