"""The bytes of a source, unpacked on the way."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol, cast

import pyarrow as pa

from launcher.prepare.sources import Source, open_source

BLOCK_BYTES = 2**20
_UTF8_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Stream(Protocol):
    """A stream of bytes that can look ahead. It can seek only where nothing is unpacked."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, place: int, /) -> int: ...
    def peek(self, size: int = 0, /) -> bytes: ...


@contextmanager
def open_stream(source: Source) -> Iterator[Stream]:
    """The bytes of a source, unpacked block by block. Several members of gzip and several frames
    of zstd are one stream. Reading raises `EOFError` or `OSError` at a torn end."""
    with open_source(source) as stream:
        if source.compression == "gzip":
            # On the same bytes 1.2 to 2 times as fast as Arrow's, and takes zeros after the end.
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield cast(Stream, unpacked)
        elif source.compression == "zstd":
            native = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")
            with io.BufferedReader(native, BLOCK_BYTES) as unpacked:
                yield cast(Stream, unpacked)
        else:
            yield cast(Stream, stream)


def without_mark(block: bytes) -> bytes:
    """The first block of a text without its byte order mark. Raises `ValueError` for one of
    another encoding than UTF-8."""
    if block.startswith(_WIDE_MARKS):
        raise ValueError("is UTF-16. Convert it: iconv -f UTF-16 -t UTF-8")
    return block.removeprefix(_UTF8_MARK)


def as_binary(stream: Stream) -> BinaryIO:
    """For libraries that take any stream."""
    return cast(BinaryIO, stream)
