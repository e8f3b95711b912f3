"""How many of each length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BINS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts of lengths: bin i holds begin + i·width < length ≤ begin + (i + 1)·width."""

    begin: int
    width: int
    counts: tuple[int, ...]
    total: int
    mean: float
    median: int
    longest: int

    def label(self, number: int) -> str:
        """The lengths of a bin: `65 to 128`."""
        first = self.begin + number * self.width + 1
        last = first + self.width - 1
        return f"{last:,}" if first == last else f"{first:,} to {last:,}"

    @property
    def highest(self) -> int:
        return max(self.counts, default=0)


def histogram(lengths: npt.NDArray[np.integer]) -> Histogram | None:
    """Of lengths > 0, in at most 16 bins whose width is a power of two; None of nothing."""
    if not len(lengths):
        return None
    shortest, longest = int(lengths.min()), int(lengths.max())
    width = 1
    while (longest - 1) // width - (shortest - 1) // width >= _BINS:
        width *= 2
    first = (shortest - 1) // width
    counts = np.bincount((lengths.astype(np.int64) - 1) // width - first)
    return Histogram(
        begin=first * width,
        width=width,
        counts=tuple(int(count) for count in counts),
        total=len(lengths),
        mean=float(lengths.mean()),
        median=int(np.median(lengths)),
        longest=longest,
    )
