"""Character classes for regular expressions, from Python's own Unicode tables."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache

HAN = r"\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Chinese characters, without the marks between them."""

ABOVE_BASIC = r"\U00010000-\U0010ffff"
"""Characters that are not in Unicode's basic plane."""

_BASIC_END = 0x10000


# Of two letters that name a category, the same again.
_RUN = re.compile(r"(..)(?:\1)*+")


@cache
def _ranges() -> list[tuple[str, int, int]]:
    """Category, first and last code point of each range in which all have the same category."""
    names = "".join(map(unicodedata.category, map(chr, range(sys.maxunicode + 1))))
    return [(run[1], run.start() // 2, run.end() // 2 - 1) for run in _RUN.finditer(names)]


@cache
def of_categories(*wanted: str) -> str:
    """The inside of `[…]` that matches characters of Unicode's categories, such as `P` or `Sm`."""
    return _inside(_joined(_wanted(wanted)))


@cache
def by_plane(*wanted: str) -> tuple[str, str]:
    """The same as two classes, of the basic plane and of those above it.

    `re` has a table for the first, but for a character that is in neither it tries each range of
    the second: searching for both in one class takes ten times as long in a Chinese text. None is
    to be looked for but behind `[ABOVE_BASIC]`.
    """
    ranges = list(_joined(_wanted(wanted)))
    basic = [(first, last) for first, last in ranges if first < _BASIC_END]
    above = [(first, last) for first, last in ranges if first >= _BASIC_END]
    return _inside(basic), _inside(above)


def _wanted(wanted: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    return ((first, last) for name, first, last in _ranges() if name.startswith(wanted))


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ascending ranges, those that touch as one."""
    begin = end = -2
    for first, last in ranges:
        if first != end + 1:
            if end >= 0:
                yield begin, end
            begin = first
        end = last
    if end >= 0:
        yield begin, end


def _inside(ranges: Iterable[tuple[int, int]]) -> str:
    """Each end is written as an escape."""
    return "".join(
        f"\\U{first:08x}" + (f"-\\U{last:08x}" if last > first else "") for first, last in ranges
    )
