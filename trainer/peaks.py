"""The most memory that each rank took, as its system and its GPU counted it."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def gather_peaks(device: torch.device) -> list[dict[str, Any]]:
    """Of every rank in order, bytes: resident in host memory, and tensors on its GPU (0 without
    one). Collective."""
    on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    # Two numbers below 2^53 are whole in float64.
    own = torch.tensor([_host_bytes(), on_device], dtype=torch.float64, device=device)
    all_of_them = [torch.zeros_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(all_of_them, own)
    return [
        {"rank": rank, "host_bytes": int(host), "device_bytes": int(gpu)}
        for rank, (host, gpu) in enumerate(tensor.tolist() for tensor in all_of_them)
    ]


def _host_bytes() -> int:
    """VmHWM of this process alone; what `getrusage` says may be of the one that started it."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
