"""The lines of a stream, each held alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from launcher.prepare.reading.row import KEPT_BYTES, LONGEST_ROW_BYTES, Failed, failed
from launcher.prepare.reading.streams import BLOCK_BYTES, Stream, go_to, without_mark


def lines(stream: Stream, begin: int = 0, end: int | None = None) -> Iterator[bytes | Failed]:
    """The lines that begin at the unpacked bytes from `begin` to before `end`, without their `\\n`.

    Holds a block and one line of at most `LONGEST_ROW_BYTES`; of a longer one, what is kept of it.
    Raises `ValueError` for a text in another encoding than UTF-8, and what the stream raises.
    """
    # What comes before the first line that begins here belongs to the unit before.
    ours = begin == 0
    place = max(0, begin - 1)
    if place:
        go_to(stream, place)
    line = Line()
    mark, is_first = 0, begin == 0
    while block := stream.read(BLOCK_BYTES):
        if is_first:
            marked, is_first = len(block), False
            block = without_mark(block)
            mark = marked - len(block)
        first, *others = block.split(b"\n")
        line.add(first)
        if not others:
            if not ours and end is not None and place + line.size >= end:
                return
            continue
        last = others.pop()
        for size, content in chain([(line.size, line.take())], ((len(o), o) for o in others)):
            if ours:
                if end is not None and place >= end:
                    return
                yield content
            ours = True
            place, mark = place + mark + size + 1, 0
        line.add(last)
    if line.size and ours and (end is None or place < end):
        yield line.take()


class Line:
    """A line, or another value, while it is read: no more of it is held than may be."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[bytes] = []

    def add(self, part: bytes) -> None:
        if self.size <= LONGEST_ROW_BYTES:
            self._parts.append(part)
        self.size += len(part)
        if self.size > LONGEST_ROW_BYTES:
            self._parts = [b"".join(self._parts)[:KEPT_BYTES]]

    def take(self) -> bytes | Failed:
        content = b"".join(self._parts)
        if self.size > LONGEST_ROW_BYTES:
            detail = f"{self.size:,} bytes; the longest row has {LONGEST_ROW_BYTES:,}"
            found: bytes | Failed = failed("line too long", detail, content)
        else:
            found = content
        self.size, self._parts = 0, []
        return found
