"""Sources cut into units, each of which one preparing task reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby, islice

from launcher.prepare.places import told
from launcher.prepare.reading import read
from launcher.prepare.reading.tables import count_batches, open_parquet
from launcher.prepare.sources import Source, Unit
from recipes.data import Data

_MIB = 2**20
_LEAST_MIB = 8
_MOST_UNITS = 20_000

# Each file with a directory of its own is asked for it; of remote ones that takes its time.
_LOOKING = 16


def unit_bytes(data: Data, sources: Sequence[Source]) -> int:
    """Bytes of a source that one task reads: what the recipe says, or 8 MiB, or of large data as
    many whole MiB as make 20,000 units. The driver keeps a report of each, so their number is
    bounded; it depends on nothing but the sources, and so do the shards."""
    if data.unit_mb is not None:
        return data.unit_mb * _MIB
    total = sum(source.bytes for source in sources)
    return max(_LEAST_MIB, math.ceil(total / _MOST_UNITS / _MIB)) * _MIB


def units(sources: Iterable[Source], unit_bytes: int) -> list[Unit]:
    """The units of all sources, numbered in order; at most a limit's rows of those with one.

    Depends on the files, the limits and `unit_bytes` alone. Files of lines are cut every
    `unit_bytes`, those of row groups and record batches after as many as take about that;
    compressed ones, json and csv are one unit each. For an entry with a limit, rows are counted
    here until there are enough, so a small limit of a large source costs little.

    Raises `DataError` for files that cannot be read.
    """
    found: list[Unit] = []
    for _, group in groupby(sources, lambda source: (source.split, source.entry)):
        members = list(group)
        most = members[0].spec.limit
        found += _all(members, unit_bytes) if most is None else _first(members, unit_bytes, most)
    return [replace(unit, number=number) for number, unit in enumerate(found)]


def first_unit(source: Source, unit_bytes: int) -> Unit | None:
    """What `units` would begin with if the source were alone and had no limit, without cutting all
    of it; None for a file without rows. Raises `DataError` for one that cannot be read."""
    return next(_cut(source, unit_bytes), None)


def _all(sources: list[Source], unit_bytes: int) -> Iterator[Unit]:
    with ThreadPoolExecutor(_LOOKING) as pool:
        for parts in pool.map(lambda source: list(_cut(source, unit_bytes)), sources):
            yield from parts


def _first(sources: list[Source], unit_bytes: int, most: int) -> Iterator[Unit]:
    left = most
    for source in sources:
        for unit in _cut(source, unit_bytes):
            rows = sum(1 for _ in islice(read(unit), left))
            left -= rows
            if rows:
                yield replace(unit, rows=rows)
            if left == 0:
                return


def _cut(source: Source, unit_bytes: int) -> Iterator[Unit]:
    with told(source.address):
        parts = _parts(source, unit_bytes)
    return (Unit(number=0, source=source, begin=begin, end=end) for begin, end in parts)


def _parts(source: Source, unit_bytes: int) -> Iterable[tuple[int, int]]:
    if source.compression is None:
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
