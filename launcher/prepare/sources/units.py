"""Sources cut into units, each of which one preparing task reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import groupby, islice, pairwise

from launcher.prepare.reading import read
from launcher.prepare.reading.tables import count_batches, open_parquet
from launcher.prepare.sources.places import told
from launcher.prepare.sources.source import Source, Unit
from launcher.prepare.sources.unpacked import unpacked_bytes
from recipes.data import Data

_MIB = 2**20
_USUAL_MIB = 8
# A small input is cut into so many, for as many CPUs to share it.
_FEW_UNITS = 16
_MOST_UNITS = 20_000

# Files that are read from their beginning on, whatever of them is wanted: each part passes over
# those before it, so for all of them half the file as often as there are parts.
_MOST_PARTS = 16
# They have these among them, by their sizes: of many such files each CPU has some anyhow.
_MOST_PARTS_TOGETHER = 64

# Each file with a directory of its own is asked for it; of remote ones that takes its time.
_LOOKING = 16


def unit_bytes(data: Data, sources: Sequence[Source]) -> int:
    """Bytes of a source that one task reads: what the recipe says, or 8 MiB; of small data as many
    whole MiB as make 16 units, of large data 20,000. The driver keeps a report of each, so their
    number is bounded but for that of the files, each of which is one at least; it depends on
    nothing but the sources, and so do the shards."""
    if data.unit_mb is not None:
        return data.unit_mb * _MIB
    total = sum(source.bytes for source in sources)
    small, large = (math.ceil(total / most / _MIB) for most in (_FEW_UNITS, _MOST_UNITS))
    return max(1, min(_USUAL_MIB, small), large) * _MIB


def units(sources: Iterable[Source], unit_bytes: int) -> list[Unit]:
    """The units of all sources, numbered in order; at most a limit's rows of those with one.

    Depends on the files, the limits and `unit_bytes` alone. Files of lines are cut every
    `unit_bytes`, those of row groups and record batches after as many as take about that;
    packed ones, json and csv so too, into at most 16 parts, and all of them together into 64 or one
    each. For an entry with a limit, rows are counted here until there are enough, so a small limit
    of a large source costs little.

    Raises `DataError` for files that cannot be read.
    """
    every = list(sources)
    passed_over = sum(source.bytes for source in every if _is_passed_over(source))
    cut = partial(_cut, unit_bytes=unit_bytes, passed_over=passed_over)
    # Counting goes through all parts one after the other, so these must not begin anew each time.
    cut_counted = partial(_cut, unit_bytes=unit_bytes, passed_over=None)
    found: list[Unit] = []
    for _, group in groupby(every, lambda source: (source.split, source.entry)):
        members = list(group)
        most = members[0].spec.limit
        found += _all(members, cut) if most is None else _first(members, cut_counted, most)
    return [replace(unit, number=number) for number, unit in enumerate(found)]


def _all(sources: list[Source], cut: Callable[[Source], Iterator[Unit]]) -> Iterator[Unit]:
    with ThreadPoolExecutor(_LOOKING) as pool:
        for parts in pool.map(lambda source: list(cut(source)), sources):
            yield from parts


def _first(
    sources: list[Source], cut: Callable[[Source], Iterator[Unit]], most: int
) -> Iterator[Unit]:
    left = most
    for source in sources:
        for unit in cut(source):
            rows = sum(1 for _ in islice(read(unit), left))
            left -= rows
            if left == 0:
                yield replace(unit, rows=rows)
                return
            if rows:
                yield unit  # whole, as blank lines after its last row count in what comes after


def _cut(source: Source, unit_bytes: int, passed_over: int | None) -> Iterator[Unit]:
    with told(source.address):
        parts = _parts(source, unit_bytes, passed_over)
    return (Unit(number=0, source=source, begin=begin, end=end) for begin, end in parts)


def _is_passed_over(source: Source) -> bool:
    """Whether what lies before a part must be read to find it."""
    if source.kind in ("json_lines", "text"):
        return source.compression is not None
    return source.kind in ("json", "csv", "tsv")


def _parts(source: Source, unit_bytes: int, passed_over: int | None) -> Iterable[tuple[int, int]]:
    """Where a source is cut; `passed_over` are the bytes of all that are read from their beginning
    on, and None leaves these whole."""
    if _is_passed_over(source):
        share = _MOST_PARTS_TOGETHER * source.bytes // passed_over if passed_over else 1
        if share > 1:
            size = unpacked_bytes(source)
            begins = range(0, size, max(unit_bytes, math.ceil(size / min(_MOST_PARTS, share))))
            # It may be larger than it says.
            return [*pairwise(begins), (begins[-1], 0)]
    elif source.compression is None:
        if source.kind in ("json_lines", "text"):
            size = source.bytes
            begins = range(0, size, unit_bytes)
            return ((begin, min(begin + unit_bytes, size)) for begin in begins)
        if source.kind == "parquet":
            with open_parquet(source) as file:
                groups = file.metadata
                sizes = [groups.row_group(n).total_byte_size for n in range(groups.num_row_groups)]
            return _runs(sizes, unit_bytes)
        if source.kind == "arrow" and (count := count_batches(source)):
            return _runs([source.bytes // count] * count, unit_bytes)
    return [(0, 0)]


def _runs(sizes: list[int], unit_bytes: int) -> list[tuple[int, int]]:
    """Runs of neighbours that are together at least `unit_bytes`; the last may be smaller."""
    runs = []
    begin, size = 0, 0
    for number, part in enumerate(sizes):
        size += part
        if size >= unit_bytes:
            runs.append((begin, number + 1))
            begin, size = number + 1, 0
    if begin < len(sizes):
        runs.append((begin, len(sizes)))
    return runs
