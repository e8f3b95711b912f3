"""Rows of a line each: of JSON, or plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from launcher.prepare.reading.lines import lines
from launcher.prepare.reading.row import Failed, Found, failed
from launcher.prepare.reading.streams import open_stream
from launcher.prepare.sources.source import Unit

MOST_NESTED = 64
"""Brackets within brackets: what later stages walk through must not depend on their own depth."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def json_lines(unit: Unit) -> Iterator[Found]:
    """The rows of a file with a JSON object on each line."""
    return _each_line(unit, json_row)


def text_lines(unit: Unit) -> Iterator[Found]:
    """The lines of a plain text, each a row with the column `text`."""
    return _each_line(unit, _text_row)


def _each_line(unit: Unit, row: Callable[[bytes], Found]) -> Iterator[Found]:
    with open_stream(unit.source) as stream:
        for line in lines(stream, unit.begin, unit.end or None):
            if isinstance(line, Failed):
                yield line
            else:
                yield row(line) if line.strip() else None


def _text_row(line: bytes) -> Found:
    try:
        return {"text": line.removesuffix(b"\r").decode("utf-8")}
    except UnicodeDecodeError as error:
        return failed("not UTF-8", error.reason, line)


def json_row(content: bytes) -> dict[str, Any] | Failed:
    """The columns in one JSON object. NaN becomes null: writers mean a value that is missing."""
    try:
        value = _DECODER.decode(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        return failed("not UTF-8", f"{error.reason} at byte {error.start}", content)
    except _TwiceError as error:
        return failed("key given twice", error, content)
    except RecursionError:
        return _too_deep(content)
    except ValueError as error:  # JSONDecodeError, and integers of more than 4300 digits
        return failed("not JSON", error, content)
    if not isinstance(value, dict) or not value:
        what = f"a {type(value).__name__}" if value != {} else "an empty object"
        return failed("not a row", f"{what} where an object with columns was expected", content)
    if content.count(b"[") + content.count(b"{") > MOST_NESTED and _depth(value) > MOST_NESTED:
        return _too_deep(content)
    if _SURROGATE.search(content) and not _can_be_written(value):
        return failed("lone surrogate", "half of a character, which cannot be written", content)
    return value


class _TwiceError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _TwiceError(repr(twice)[:200])
    return found


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _too_deep(content: bytes) -> Failed:
    return failed("nested too deeply", f"more than {MOST_NESTED} brackets deep", content)


def _depth(value: Any) -> int:
    """Levels of brackets, found without recursion."""
    deepest, level = 0, [value]
    while level:
        deepest += 1
        inner = [list(one.values()) if isinstance(one, dict) else one for one in level]
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        if deepest > MOST_NESTED:
            break
    return deepest


def _can_be_written(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
