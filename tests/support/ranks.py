"""Ranks without Ray: processes of one group on this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_ranks(
    world_size: int, function: Callable[..., Any], *args: Any, device: str = "cpu"
) -> Any:
    """Call `function(*args)` on every rank of a new process group; what rank 0 returned."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_main, args=(world_size, folder, function, args, device), nprocs=world_size)
        return torch.load(Path(folder) / "result.pt", weights_only=False)


def _main(
    rank: int,
    world_size: int,
    folder: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    device: str,
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size),
        DS_ACCELERATOR=device,
        OMP_NUM_THREADS="1",
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
