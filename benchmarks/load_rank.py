"""One rank that loads a base and builds its engine as a run does, and watches its memory.

`torchrun -m benchmarks.load_rank STAGE QUANTIZATION RESULT`
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from adapters.base import load_base
from adapters.base_ref import locate
from adapters.quantization import quantization_of
from recipes.load import load
from trainer.engine import build_engine
from trainer.order import Order

BASE = "sample:smollm2-135m-instruct"
_PAUSE_S = 0.01


def main(stage: int, quantization: str, result: Path) -> None:
    """Build one engine; rank 0 writes down the bytes that it took (JSON)."""
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    recipe = load(
        "quickstart",
        [
            f"base.source={BASE}",
            f"base.quantization={quantization}",
            "base.dtype=float32",
            "train.micro_batch_size=2",
            f"zero.stage={stage}",
            f"cluster.workers={dist.get_world_size()}",
        ],
    ).recipe
    device = torch.device("cpu")
    folder = locate(recipe.base, Path(recipe.storage.cache))
    order = Order(num_rows=64, seed=0, global_batch_size=8, micro_batch_size=2)
    read = partial(
        load_base, folder, recipe.task, quantization=quantization_of(recipe.base, device)
    )
    pids = _of_all(os.getpid())
    before = _of_all(_resident(os.getpid(), "Rss"))
    _forget_peak()
    with _watched(pids if dist.get_rank() == 0 else []) as node:
        build_engine(recipe, read, order=order, num_steps=1, device=device, state=None)
        dist.barrier()
    peaks = _of_all(_peak())
    if dist.get_rank() == 0:
        found = {
            "before_bytes": before,
            "peak_bytes": peaks,
            "node_before_bytes": node[0],
            "node_peak_bytes": max(node),
            "node_after_bytes": _together(pids),
        }
        result.write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def _of_all(own: int) -> list[int]:
    """What each rank says, in their order."""
    found = [0] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return found


@contextmanager
def _watched(pids: list[int]) -> Iterator[list[int]]:
    """What the processes take together, each shared page counted once (bytes), again and again."""
    sums: list[int] = []
    done = threading.Event()

    def look() -> None:
        while pids and not done.is_set():
            sums.append(_together(pids))
            time.sleep(_PAUSE_S)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sums
    finally:
        done.set()
        thread.join()


def _together(pids: list[int]) -> int:
    return sum(_resident(pid, "Pss") for pid in pids)


def _resident(pid: int, kind: str) -> int:
    """Rss or Pss of a process (bytes): all its pages, or of those that are shared its share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("Linux tells it")


def _forget_peak() -> None:
    """Let the peak that Linux counts begin at what is resident now (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("Linux tells it")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
