"""Character classes for regular expressions, from Python's own Unicode tables."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable
from functools import cache

HAN = r"\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Chinese characters, without the marks between them."""


@cache
def _categories() -> list[str]:
    return [unicodedata.category(chr(code)) for code in range(sys.maxunicode + 1)]


@cache
def of_categories(*wanted: str) -> str:
    """The inside of `[…]` that matches characters of Unicode's categories, such as `P` or `Sm`."""
    known = {name: name.startswith(wanted) for name in set(_categories())}
    return _ranges(code for code, name in enumerate(_categories()) if known[name])


def _ranges(codes: Iterable[int]) -> str:
    """Ascending code points as ranges, each end written as an escape."""
    parts: list[str] = []
    first = last = -2
    for code in [*codes, -2]:
        if code == last + 1:
            last = code
            continue
        if first >= 0:
            parts.append(f"\\U{first:08x}" + (f"-\\U{last:08x}" if last > first else ""))
        first = last = code
    return "".join(parts)
