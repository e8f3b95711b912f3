"""`python -m benchmarks [NAME]…` measures and writes benchmarks/results/NAME.json."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import (
    against_trl,
    checkpoint_bytes,
    kinds,
    load_memory,
    prepare,
    resilience,
    scale,
    step_time,
)
from benchmarks.record import write_result

BENCHMARKS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "checkpoint_bytes": checkpoint_bytes.measure,
    "resilience": resilience.measure,
    "step_time": step_time.measure,
    "kinds": kinds.measure,
    "against_trl": against_trl.measure,
    "load_memory": load_memory.measure,
    "prepare": prepare.measure,
    "scale": scale.measure,
}


def main(names: list[str]) -> None:
    """Measure the named benchmarks, or all."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"There is no benchmark {unknown[0]}; there are {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
            write_result(name, BENCHMARKS[name](Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
