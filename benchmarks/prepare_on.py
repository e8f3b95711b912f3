"""Preparing on a Ray of its own, and what it takes of time and processor, or of memory.

`python -m benchmarks.prepare_on RECIPE NODES CPUS time|memory RESULT` starts so many nodes on this
machine with so many CPUs each, prepares the recipe, and writes down the figures as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

_PAUSE_S = 0.1
STORE_BYTES = 80 * 2**20
"""About the least that Ray takes for an object store."""


def main(recipe_file: str, nodes: int, cpus: int, what: str, result: Path) -> None:
    """Prepare, and write the figures."""
    from launcher.prepare.pipeline import prepare
    from recipes.load import load

    recipe = load(recipe_file, []).recipe
    with ray_of(nodes, cpus):
        warm_up(nodes * cpus)
        begin, begin_cpu = time.perf_counter(), time.process_time()
        # To look takes a tenth of a core.
        with watched() if what == "memory" else nullcontext() as seen:
            prepared = prepare(
                recipe,
                base_folder=Path(recipe.base.source),
                cache=Path(recipe.storage.cache),
                progress=lambda name, done, total, *, rows=0: None,
            )
        figures = {
            "nodes": nodes,
            "cpus": nodes * cpus,
            "rows": prepared.manifest["rows_read"],
            "units": len(prepared.manifest["units"]),
            "seconds": time.perf_counter() - begin,
            "driver_cpu_s": time.process_time() - begin_cpu,
        }
        if seen is not None:
            figures = {**figures, **seen.told()}
    result.write_text(json.dumps(figures), encoding="utf-8")


@contextmanager
def ray_of(nodes: int, cpus: int) -> Iterator[None]:
    """Connected to a Ray of some nodes on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    # Ray's own default leaves anything else on the machine the processor first.
    os.environ.update({"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"})
    options: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**options)
        ray.init(address=cluster.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def warm_up(num_cpus: int) -> None:
    """Every worker has imported what a task needs: seconds that do not grow with the data."""
    import ray

    @ray.remote(num_cpus=1)
    def imported() -> None:
        from launcher.prepare.cleaning.words import cutter

        cutter("exact", None, True)
        import_module("transformers.utils.chat_template_utils")
        time.sleep(1)  # so that the next one is given to another worker

    ray.get([imported.remote() for _ in range(num_cpus)])


@dataclass(slots=True)
class Watched:
    """What the processes of Ray, and this one, took at the most (bytes)."""

    together: int = 0
    """Of all, shared pages counted once (PSS)."""
    store: int = 0
    """Of an object store, what it has ever held of its room: shared memory of the raylet."""
    of_process: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """Private memory of each."""
    names: dict[int, str] = field(default_factory=dict)

    def look(self) -> None:
        """Look once."""
        total = 0
        here = psutil.Process()
        for process in [here, *here.children(recursive=True)]:
            with suppress(psutil.Error, OSError):
                memory = process.memory_full_info()
                total += memory.pss
                pid = process.pid
                self.of_process[pid] = max(self.of_process[pid], memory.uss)
                if self.names.get(pid) != "tokenizer":  # it goes on with other tasks
                    self.names[pid] = "driver" if process == here else _kind(process)
                if self.names[pid] == "raylet":
                    self.store = max(self.store, _shared_memory(pid))
        self.together = max(self.together, total)

    def told(self) -> dict[str, Any]:
        """The figures: of each kind of process, the one that took the most."""
        worst: dict[str, int] = defaultdict(int)
        for pid, size in self.of_process.items():
            worst[self.names[pid]] = max(worst[self.names[pid]], size)
        return {
            "together_peak_bytes": self.together,
            "task_peak_bytes": worst["task"],
            "tokenizer_peak_bytes": worst["tokenizer"],
            "driver_peak_bytes": worst["driver"],
            "object_store_peak_bytes": self.store,
        }


def _shared_memory(pid: int) -> int:
    """Pages of shared memory that a process has touched, its files left out (bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssShmem:"):
            return int(line.split()[1]) * 1024
    return 0


def _kind(process: psutil.Process) -> str:
    """`task` for a worker of Ray, `tokenizer` for the one that loads the base's."""
    title = " ".join(process.cmdline()[:1])
    if title.startswith("ray::leave"):  # launcher.prepare.base_tokenizer
        return "tokenizer"
    return "task" if title.startswith("ray::") else process.name()


@contextmanager
def watched() -> Iterator[Watched]:
    """Look at the memory of Ray and this process again and again, meanwhile."""
    seen, over = Watched(), threading.Event()

    def look() -> None:
        while not over.wait(_PAUSE_S):
            seen.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
