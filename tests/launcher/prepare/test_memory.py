"""Memory is bounded whatever the input: see docs/data.md, `How much memory, how fast`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import prepare
from benchmarks.prepare_on import STORE_BYTES

ROOT = Path(__file__).parents[3]
MIB = 2**20


@pytest.mark.slow
def test_an_input_of_four_object_stores_is_prepared_in_the_memory_of_a_unit(
    llama: Path, tmp_path: Path
):
    rows = tmp_path / "rows.jsonl"
    prepare.write_large(rows, 4 * STORE_BYTES)
    content = {
        "base": {"source": str(llama)},
        "data": {
            "train": [str(rows)],
            "format": "text",
            "clean": [{"characters": {"max": 4000}}],
            "too_long": "truncate",
            "packing": True,
        },
        "adapter": {"targets": ["q_proj"]},
        "train": {
            "steps": 1,
            "global_batch_size": 1,
            "micro_batch_size": 1,
            "learning_rate": 1e-3,
        },
        "storage": {"cache": str(tmp_path / "cache")},
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(content))  # which is YAML too
    result = tmp_path / "figures.json"
    command = ["-m", "benchmarks.prepare_on", str(recipe), "1", "2", "memory", str(result)]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, timeout=1100)
    figures = json.loads(result.read_text())
    assert rows.stat().st_size >= 4 * STORE_BYTES
    assert figures["units"] >= 10  # of 32 MiB, the default
    assert figures["task_peak_bytes"] < 500 * MIB
    # Transformers and torch take 400 MiB, in one worker alone.
    assert figures["tokenizer_peak_bytes"] < 900 * MIB
    # The object store holds names of files and reports, not rows.
    assert figures["object_store_peak_bytes"] < 8 * MIB
