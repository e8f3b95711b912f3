"""Blocks that are freed while a base is loaded go back to the system, though others lie on them."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from adapters.host_memory import freed_at_once


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


torch.ones(8 * 2**20).sum()  # a block of 32 MiB: from now on glibc keeps what is smaller
before, kept = resident(), []
with freed_at_once() if sys.argv[1] == "at once" else nullcontext():
    for number in range(40):
        large = torch.ones(2**20)
        kept.append(torch.ones(30_000))
        del large
        kept.append(torch.ones(30_000 + number))
print((resident() - before) / 2**20 - 80 * 30_000 * 4 / 2**20)
"""


def left_over_mib(how: str) -> float:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
    )
    return float(found.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_is_kept_of_what_was_freed() -> None:
    assert left_over_mib("at once") < 2
