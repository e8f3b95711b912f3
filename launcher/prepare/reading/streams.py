"""The bytes of a source, unpacked on the way."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol, cast

import pyarrow as pa

from launcher.prepare.sources.file_kinds import Compression
from launcher.prepare.sources.source import Source, open_source

BLOCK_BYTES = 2**20
_UTF8_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Stream(Protocol):
    """A stream of bytes that can look ahead. One that unpacks zstd cannot seek."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seekable(self) -> bool: ...
    def seek(self, place: int, /) -> int: ...
    def peek(self, size: int = 0, /) -> bytes: ...


@contextmanager
def open_stream(source: Source) -> Iterator[Stream]:
    """The bytes of a source, unpacked block by block. Several members of gzip and several frames
    of zstd are one stream. Raises `EOFError` where a packed one is cut off, and `ValueError` where
    it is damaged."""
    with open_source(source) as stream, _damage_told(source.compression):
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


@contextmanager
def _damage_told(compression: Compression | None) -> Iterator[None]:
    try:
        yield
    except (zlib.error, OSError) as error:
        text = str(error)
        if "Truncated compressed stream" in text:
            raise EOFError(text) from error
        if isinstance(error, _DAMAGES) or "ZSTD" in text:
            raise ValueError(f"is no {compression} file, or damaged: {text}") from error
        raise


_DAMAGES = (zlib.error, gzip.BadGzipFile)


def without_mark(block: bytes) -> bytes:
    """The first block of a text without its byte order mark. Raises `ValueError` for one of
    another encoding than UTF-8."""
    if block.startswith(_WIDE_MARKS):
        raise ValueError("is UTF-16. Convert it: iconv -f UTF-16 -t UTF-8")
    return block.removeprefix(_UTF8_MARK)


def go_to(stream: Stream, place: int) -> None:
    """Go from the beginning to an unpacked byte; what is packed is unpacked up to there."""
    if stream.seekable():
        stream.seek(place)
        return
    while place and (block := stream.read(min(place, BLOCK_BYTES))):
        place -= len(block)


def pass_over(stream: Stream) -> int:
    """Read what is left, so that damage there is noticed: how many bytes are no white space."""
    left = 0
    while block := stream.read(BLOCK_BYTES):
        left += len(block.strip())
    return left


def as_binary(stream: Stream) -> BinaryIO:
    """For libraries that take any stream."""
    return cast(BinaryIO, stream)
