"""Ranks without Ray: processes of one group on this machine."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_ranks(
    world_size: int, function: Callable[..., Any], *args: Any, device: str = "cpu"
) -> Any:
    """Call `function(*args)` on every rank of a new process group; what rank 0 returned."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _main,
            args=(dict(os.environ), world_size, folder, function, args, device),
            nprocs=world_size,
            start_method=_start_method(device),
        )
        return torch.load(Path(folder) / "result.pt", weights_only=False)


@cache
def _start_method(device: str) -> str:
    """On CPUs ranks are copies of a process that has imported what takes 7 s, and done no more."""
    if device != "cpu":
        return "spawn"
    multiprocessing.get_context("forkserver").set_forkserver_preload(["support.imported"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # it does not get ours otherwise
        for name, value in _of_every_rank(device).items():
            patch.setenv(name, value)
        forkserver.ensure_running()
    return "forkserver"


def _of_every_rank(device: str) -> dict[str, str]:
    return {"DS_ACCELERATOR": device, "OMP_NUM_THREADS": "1"}


def _main(
    rank: int,
    environment: dict[str, str],
    world_size: int,
    folder: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    device: str,
) -> None:
    os.environ.clear()
    os.environ.update(
        environment,
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size),
        **_of_every_rank(device),
    )
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", world_size)
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    result = function(*args)
    if rank == 0:
        torch.save(result, Path(folder) / "result.pt")
    dist.barrier()
    dist.destroy_process_group()
