"""Host memory that is given back while a base is loaded.

glibc keeps freed blocks of up to 32 MiB for later, and what is packed in between keeps them from
going back to the system: loading SmolLM2-135M in nf4 took 300 MiB more than is there at any moment,
and kept them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 2**20
# Where glibc's own thresholds end up once blocks of all sizes were freed (mallopt(3)).
_LARGEST_BYTES = 32 * 2**20


@contextmanager
def freed_at_once() -> Iterator[None]:
    """Every block of 1 MiB or more that is freed meanwhile goes back to the system, where the C
    library is glibc; elsewhere nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    try:
        yield
    finally:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_BYTES)
