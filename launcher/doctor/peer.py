"""One side of an all-reduce between two nodes: an actor of Ray, with torch."""

from __future__ import annotations

import statistics
import time
from datetime import timedelta
from typing import Any

import ray

from launcher.doctor.probe import Address

LIMIT_S = 30.0
"""How long one side waits for the other."""

# Large enough that the network counts and not the call; a gigabit takes 0.13 s for the smaller.
_BYTES = {"gloo": 16 * 2**20, "nccl": 256 * 2**20}
_WARM_UP, _REPEATS = 1, 5


@ray.remote(num_cpus=0, max_restarts=0)
class Peer:
    """Joins others, one after another, as a rank of two joins its group when it trains."""

    def __init__(self) -> None:
        self._store: Any = None

    def make_ready(self) -> None:
        """Import what takes a minute where it is read over a busy network, and the other side would
        not wait for."""
        import torch.distributed  # noqa: F401

    def open(self) -> Address:
        """Where the other side finds this one, which is to be rank 0."""
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        host = ray.util.get_node_ip_address()
        limit = timedelta(seconds=LIMIT_S)
        self._store = TCPStore(host, 0, 2, True, timeout=limit, wait_for_workers=False)
        return host, self._store.port

    def bytes_per_s(self, address: Address | None, *, gpu: bool) -> float | str:
        """As rank 1 with what `open` of the other side has returned, or as rank 0 with None: the
        speed of an all-reduce (median), or why there is none."""
        import torch
        from torch import distributed
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        limit = timedelta(seconds=LIMIT_S)
        backend = "nccl" if gpu else "gloo"
        try:
            store = self._store
            if address is not None:
                store = TCPStore(*address, 2, False, timeout=limit)
            rank = 0 if address is None else 1
            distributed.init_process_group(
                backend, store=store, rank=rank, world_size=2, timeout=limit
            )
            tensor = torch.zeros(
                _BYTES[backend] // 4, dtype=torch.float32, device="cuda" if gpu else "cpu"
            )
            times = [_all_reduce_s(tensor) for _ in range(_WARM_UP + _REPEATS)][_WARM_UP:]
        except RuntimeError as error:  # torch's own errors all are
            return str(error).splitlines()[0]
        finally:
            self._store = None
            if distributed.is_initialized():
                distributed.destroy_process_group()
        return _BYTES[backend] / statistics.median(times)


def _all_reduce_s(tensor: Any) -> float:
    import torch
    from torch import distributed

    distributed.barrier()
    begin = time.perf_counter()
    distributed.all_reduce(tensor)
    if tensor.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin
