"""Rows of a JSON file, one after the other: a list of objects, or such a list under `data`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from launcher.prepare.reading.lines import Line
from launcher.prepare.reading.row import Failed, Found
from launcher.prepare.reading.streams import (
    BLOCK_BYTES,
    Stream,
    open_stream,
    pass_over,
    without_mark,
)
from launcher.prepare.reading.text_rows import json_row
from launcher.prepare.sources.source import Unit

_ADVICE = "One object per line belongs into a .jsonl file"
_SPACE = re.compile(rb"[ \t\r\n]*")
_BRACKETS = re.compile(rb'["\[\]{}]')
_WORD = re.compile(rb"[^ \t\r\n,\[\]{}:\"]*")
_BACKSLASH = 0x5C

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'


def _nested(levels: int) -> bytes:
    inner = _STRING if levels == 1 else _STRING + b"|" + _nested(levels - 1)
    return rb'[\[{][^"\[\]{}]*+(?:(?:' + inner + rb')[^"\[\]{}]*+)*+[\]}]'


# What most rows are: found at once, in a fourth of the time, if they lie in the block whole.
_NEXT_USUAL = re.compile(rb"[ \t\r\n]*+,[ \t\r\n]*+(" + _nested(4) + b")", re.DOTALL)


def json_rows(unit: Unit) -> Iterator[Found]:
    """The elements of the list. The file is cut between them by its brackets and quotes alone, so
    one that is no JSON fails by itself; those before the unit are passed over. Raises `ValueError`
    where the list itself is none."""
    with open_stream(unit.source) as stream:
        text = _Text(stream)
        is_alone = text.next_sign() != b"{"
        if not is_alone:
            _go_to_data(text)
        text.expect(b"[")
        if text.next_sign() == b"]":
            text.expect(b"]")
        else:
            for place, content in text.values():
                if unit.end and place >= unit.end:
                    return
                if place >= unit.begin:
                    yield _row(content)
            text.expect(b"]")
        text.end(is_alone=is_alone)


def _row(content: bytes | Failed) -> Found:
    return content if isinstance(content, Failed) else json_row(content)


def _go_to_data(text: _Text) -> None:
    text.expect(b"{")
    while text.next_sign() == b'"':
        name = text.value()
        text.expect(b":")
        if name == b'"data"':
            return
        text.value()
        if text.next_sign() == b",":
            text.expect(b",")
    raise ValueError(f"is not JSON with a list of rows, alone or as its `data`. {_ADVICE}")


class _Text:
    """A JSON text that is read value by value; holds a block and a value."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._block = without_mark(stream.read(BLOCK_BYTES))
        self._place = 0
        self._passed = 0

    def next_sign(self) -> bytes:
        """The next byte that is no white space; it is not taken."""
        while True:
            self._place = _end(_SPACE, self._block, self._place)
            if self._place < len(self._block):
                return self._block[self._place : self._place + 1]
            self._next_block()

    def expect(self, sign: bytes) -> None:
        """Take a sign. Raises `ValueError` where another stands."""
        found = self.next_sign()
        if found != sign:
            raise ValueError(
                f"is not JSON: {found!r} at byte {self._passed + self._place:,}, where "
                f"{sign.decode()} was expected. {_ADVICE}"
            )
        self._place += 1

    def end(self, *, is_alone: bool) -> None:
        """Read to the end. Raises `ValueError` for a list that is alone and yet is not the end."""
        left = len(self._block[self._place :].strip()) + pass_over(self._stream)
        if left and is_alone:
            raise ValueError(f"is not JSON: {left:,} bytes after the end of its list. {_ADVICE}")

    def values(self) -> Iterator[tuple[int, bytes | Failed]]:
        """Take values with commas between them: the byte where each begins, and the value."""
        while True:
            self.next_sign()
            place = self._passed + self._place
            yield place, self.value()
            while usual := _NEXT_USUAL.match(self._block, self._place):
                self._place = usual.end()
                yield self._passed + usual.start(1), usual[1]
            if self.next_sign() != b",":
                return
            self.expect(b",")

    def value(self) -> bytes | Failed:
        """Take a value; of one that is too long, its beginning."""
        first = self.next_sign()
        if first in b",:]}":
            self.expect(b"a value")
        if first not in b'"[{':
            return self._taken(_Scalar())
        return self._taken(_Balance())

    def _taken(self, scan: _Scalar | _Balance) -> bytes | Failed:
        value = Line()
        while True:
            end = scan.end(self._block, self._place)
            value.add(self._block[self._place : end])
            self._place = end
            if scan.done:
                return value.take()
            self._next_block()

    def _next_block(self) -> None:
        self._passed += len(self._block)
        self._block, self._place = self._stream.read(BLOCK_BYTES), 0
        if not self._block:
            raise ValueError(f"is not JSON: it ends after {self._passed:,} bytes. {_ADVICE}")


class _Scalar:
    """Where a number or a word ends, over as many blocks as it takes."""

    done = False

    def end(self, block: bytes, place: int) -> int:
        end = _end(_WORD, block, place)
        self.done = end < len(block)
        return end


class _Balance:
    """Where a string, list or object ends, over as many blocks as it takes."""

    def __init__(self) -> None:
        self.done = False
        self._depth = 0
        self._in_string = False
        self._escapes = False

    def end(self, block: bytes, place: int) -> int:
        """The end of the value, or of the block; `done` says which."""
        while not self.done:
            if self._in_string:
                place = self._end_of_string(block, place)
                if self._in_string:
                    return place
            else:
                sign = _BRACKETS.search(block, place)
                if sign is None:
                    return len(block)
                place = sign.end()
                if sign[0] == b'"':
                    self._in_string = True
                    continue
                self._depth += 1 if sign[0] in b"[{" else -1
            self.done = self._depth <= 0
        return place

    def _end_of_string(self, block: bytes, place: int) -> int:
        begin = place
        while True:
            quote = block.find(b'"', place)
            last = len(block) if quote < 0 else quote
            before = last
            while before > begin and block[before - 1] == _BACKSLASH:
                before -= 1
            # A backslash takes away the meaning of what follows it, in the next block too.
            escapes = (last - before) % 2 == 1
            if before == begin:
                escapes ^= self._escapes
            self._escapes = False
            if quote < 0:
                self._escapes = escapes
                return last
            place = begin = quote + 1
            if not escapes:
                self._in_string = False
                return place


def _end(sign: re.Pattern[bytes], block: bytes, place: int) -> int:
    found = sign.match(block, place)
    assert found is not None
    return found.end()
