"""Host memory that loading a base takes, of each rank and of their node: plain and quantised, by
ZeRO stage and number of ranks. What the libraries take is left out.

Under stage 3 a node should hold one copy of the base, whatever the number of its ranks, beside the
file, which is mapped, shared, and dropped when memory is short.
"""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

from adapters.base_ref import locate
from benchmarks.load_rank import BASE
from cluster.process import run
from launcher.plan.base_shape import read_base_shape
from recipes.base import Base
from recipes.storage import default_cache

_TIMEOUT_S = 600
_RANKS = (1, 2, 4)
_STAGES = (2, 3)
_QUANTIZATIONS = ("none", "nf4")


def measure(folder: Path) -> dict[str, Any]:
    """Bytes, and how many copies of the base that would be."""
    base = read_base_shape(
        locate(Base(source=BASE), Path(default_cache())), task="causal_lm", num_labels=0
    )
    figures: dict[str, Any] = {
        "base_float32_bytes": 4 * base.parameters,
        "file_bytes": base.file_bytes,
    }
    for quantization, stage, ranks in product(_QUANTIZATIONS, _STAGES, _RANKS):
        found = _load(folder, ranks, stage, quantization)
        figures[f"{quantization}_stage_{stage}_ranks_{ranks}"] = {
            **found,
            "node_peak_in_copies": found["node_peak_bytes"] / (4 * base.parameters),
        }
    return figures


def _load(folder: Path, ranks: int, stage: int, quantization: str) -> dict[str, Any]:
    """Beside what was resident before: the rank that took the most, and all of them together."""
    result = folder / "load.json"
    run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(ranks), "-m", "benchmarks.load_rank"),
            *(str(stage), quantization, str(result)),
        ],
        timeout_s=_TIMEOUT_S,
        env={"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parent.parent,
    )
    found = json.loads(result.read_text(encoding="utf-8"))
    of_ranks = zip(found["peak_bytes"], found["before_bytes"], strict=True)
    return {
        "rank_peak_bytes": max(peak - before for peak, before in of_ranks),
        "node_peak_bytes": found["node_peak_bytes"] - found["node_before_bytes"],
        "node_after_bytes": found["node_after_bytes"] - found["node_before_bytes"],
    }
