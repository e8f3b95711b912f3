"""Boilerplate: lines that stand in more than n texts of the whole input.

Each unit counts in how many of its texts a line stands, and leaves a file of hashes and counts,
sorted by hash; the files are merged into the hashes of frequent lines. A line is known by 64 bits
of its hash: of a billion different lines, one in 18 billion is taken for another.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recipes.data import steps

Hashes = npt.NDArray[np.uint64]

_COUNTED = np.dtype([("hash", "<u8"), ("count", "<u4")])
"""A record of a file of counts: a line's hash, and the number of texts that it stands in."""

_MERGED_FILES = 256
"""Files that are open at once; of more, groups are merged first."""

_MERGED_RECORDS = 1 << 21
"""Records of all open files that are in memory at once; merging them takes about 60 bytes each."""


def lines_of(text: str, min_characters: int = 1) -> list[str]:
    """The different lines of a text in its order, without white space at their ends."""
    lines = map(str.strip, text.split("\n"))
    return list(dict.fromkeys(line for line in lines if len(line) >= min_characters))


def hash_of(line: str) -> int:
    """64 bits that are the same on every machine."""
    digest = hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class LineCounter:
    """Counts, text by text, in how many texts of a unit each line stands; 8 bytes for a line."""

    def __init__(self, step: steps.BoilerplateLines) -> None:
        self._min_characters = step.min_characters
        self._hashes = array("Q")

    def add(self, text: str) -> None:
        self._hashes.extend(map(hash_of, lines_of(text, self._min_characters)))

    def save(self, file: Path) -> None:
        """Write the records of this unit, sorted by hash."""
        hashes, counts = np.unique(np.array(self._hashes, np.uint64), return_counts=True)
        _records(hashes, counts).tofile(file)


def find_frequent(files: Sequence[Path], more_than: int, work: Path) -> Hashes:
    """The sorted hashes of lines whose counts in all files together are above `more_than`.

    `work` is a folder for what is merged of more than 256 files. Memory is bounded by 128 MiB and
    8 bytes for each frequent line, whatever the number and size of the files.
    """
    level = 0
    while len(files) > _MERGED_FILES:
        groups = [files[n : n + _MERGED_FILES] for n in range(0, len(files), _MERGED_FILES)]
        merged = [work / f"lines_{level}_{number:06d}.bin" for number in range(len(groups))]
        for group, target in zip(groups, merged, strict=True):
            with target.open("wb") as sink:
                for records in _merged(group):
                    records.tofile(sink)
        files, level = merged, level + 1
    found = [records["hash"][records["count"] > more_than] for records in _merged(files)]
    return np.concatenate(found) if found else np.zeros(0, np.uint64)


def _merged(files: Sequence[Path]) -> Iterator[npt.NDArray[np.void]]:
    """Records of ascending hashes with their counts over all files, no hash twice.

    Every round takes from each file what is not above the smallest last hash of the blocks at hand:
    no later block of any file can hold one of those.
    """
    opened = [np.memmap(file, _COUNTED, "r") for file in files if file.stat().st_size]
    begins = [0] * len(opened)
    size = _MERGED_RECORDS // max(1, len(opened))
    while left := [n for n, records in enumerate(opened) if begins[n] < len(records)]:
        blocks = {n: np.asarray(opened[n][begins[n] : begins[n] + size]) for n in left}
        limit = min(block["hash"][-1] for block in blocks.values())
        taken = []
        for n, block in blocks.items():
            count = int(np.searchsorted(block["hash"], limit, side="right"))
            taken.append(block[:count])
            begins[n] += count
        together = np.concatenate(taken)
        hashes, places = np.unique(together["hash"], return_inverse=True)
        # float64, in which bincount adds, is exact up to 2^53 texts.
        yield _records(hashes, np.bincount(places, weights=together["count"]))


def _records(hashes: npt.NDArray[np.uint64], counts: npt.NDArray[Any]) -> npt.NDArray[np.void]:
    records = np.empty(len(hashes), _COUNTED)
    records["hash"], records["count"] = hashes, counts
    return records


def boilerplate_lines(step: steps.BoilerplateLines, frequent: Hashes) -> Callable[[str], str]:
    """`frequent` is sorted, as `find_frequent` gives it; memory-mapped is best."""

    def is_frequent(line: str) -> bool:
        line = line.strip()
        if len(line) < step.min_characters:
            return False
        key = np.uint64(hash_of(line))
        place = int(np.searchsorted(frequent, key))
        return place < len(frequent) and bool(frequent[place] == key)

    def strip(text: str) -> str:
        lines = text.split("\n")
        kept = [line for line in lines if not is_frequent(line)]
        return text if len(kept) == len(lines) else "\n".join(kept)

    return strip
