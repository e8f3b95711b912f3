"""Rows of parquet and Arrow files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from launcher.prepare.reading.row import Found, failed
from launcher.prepare.reading.streams import as_binary, open_stream, pass_over
from launcher.prepare.sources.places import files_at
from launcher.prepare.sources.source import Source, Unit
from recipes.address import is_address

_BATCH_BYTES = 4 * 2**20
_MOST_ROWS = 4096
_PAGE_BUFFER_BYTES = 2**20
_ARROW_FILE = b"ARROW1"
# The mark of an Arrow file is filled up to eight bytes; what follows is a stream.
_STREAM_BEGINS = 8


@contextmanager
def open_parquet(source: Source) -> Iterator[pq.ParquetFile]:
    """A parquet file. One that was packed as a whole is unpacked into a file of this machine's
    temporary folder first: its directory lies at its end."""
    with (
        _damage_told("parquet"),
        _parquet_bytes(source) as stream,
        # Arrow is given a page's bytes at a time rather than all those of a column.
        pq.ParquetFile(stream, buffer_size=_PAGE_BUFFER_BYTES) as file,
    ):
        _check_names(file.schema_arrow)
        yield file


@contextmanager
def _parquet_bytes(source: Source) -> Iterator[Any]:
    if source.compression is None:
        with files_at(source.address).open_arrow(source.address, mapped=False) as stream:
            yield stream
        return
    with open_stream(source) as packed, tempfile.TemporaryFile(suffix=".parquet") as unpacked:
        shutil.copyfileobj(as_binary(packed), unpacked, _BATCH_BYTES)
        unpacked.seek(0)
        yield unpacked


def parquet_rows(unit: Unit) -> Iterator[Found]:
    """The rows of the unit's row groups, or of all."""
    with open_parquet(unit.source) as file:
        metadata = file.metadata
        groups = range(unit.begin, unit.end or metadata.num_row_groups)
        rows = sum(metadata.row_group(group).num_rows for group in groups)
        size = sum(metadata.row_group(group).total_byte_size for group in groups)
        batch_size = max(1, min(_MOST_ROWS, _BATCH_BYTES * rows // max(1, size)))
        for batch in file.iter_batches(batch_size, row_groups=list(groups)):
            yield from _rows(batch)


def arrow_rows(unit: Unit) -> Iterator[Found]:
    """The rows of the unit's record batches, or of all."""
    with _damage_told("Arrow"):
        for batch in _batches(unit):
            rows = max(1, min(_MOST_ROWS, _BATCH_BYTES * batch.num_rows // max(1, batch.nbytes)))
            for begin in range(0, batch.num_rows, rows):
                yield from _rows(batch.slice(begin, rows))


def count_batches(source: Source) -> int:
    """The record batches of an Arrow file, or 0 where that cannot be known without reading it: of
    packed ones, and of streams that lie elsewhere."""
    if source.compression is not None:
        return 0
    with _damage_told("Arrow"), _arrow_bytes(source) as stream:
        if _is_file(stream):
            return int(pa.ipc.open_file(stream).num_record_batches)
        if is_address(source.address):
            return 0
        return sum(1 for _ in pa.ipc.open_stream(stream))


def _batches(unit: Unit) -> Iterator[pa.RecordBatch]:
    end = unit.end or None
    if unit.source.compression is not None:
        with open_stream(unit.source) as packed:
            if packed.peek(len(_ARROW_FILE)).startswith(_ARROW_FILE):
                packed.read(_STREAM_BEGINS)
            yield from _streamed(pa.PythonFile(as_binary(packed), mode="r"))
            pass_over(packed)
        return
    with _arrow_bytes(unit.source) as stream:
        if not _is_file(stream):
            # Batches of a mapped stream that are passed over are not read.
            yield from islice(_streamed(stream), unit.begin, end)
            return
        reader = pa.ipc.open_file(stream)
        _check_names(reader.schema)
        for number in range(unit.begin, end or reader.num_record_batches):
            yield reader.get_batch(number)


def _streamed(stream: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_stream(stream) as reader:
        _check_names(reader.schema)
        yield from reader


def _arrow_bytes(source: Source) -> pa.NativeFile:
    return files_at(source.address).open_arrow(source.address, mapped=True)


def _is_file(stream: pa.NativeFile) -> bool:
    is_file = bytes(stream.read(len(_ARROW_FILE))) == _ARROW_FILE
    stream.seek(0)
    return is_file


def _rows(batch: pa.RecordBatch) -> Iterator[Found]:
    """The rows of a batch; when one cannot be read, each of them by itself."""
    try:
        # Arrow believes what a file says of its buffers; a wrong place would kill the process.
        batch.validate(full=True)
        rows = _without_nan(batch).to_pylist()
    except _UNREADABLE as error:
        if batch.num_rows == 1:
            yield _failed(batch, error)
            return
        for number in range(batch.num_rows):
            yield from _rows(batch.slice(number, 1))
    else:
        yield from rows


_UNREADABLE = (ValueError, OverflowError, NotImplementedError)  # Arrow's are ValueErrors


def _failed(row: pa.RecordBatch, error: Exception) -> Found:
    if "UTF8" not in str(error) and not isinstance(error, UnicodeDecodeError):
        return failed("value cannot be read", error, b"")
    shown = {
        name: column.view(_AS_BYTES[column.type]).to_pylist()[0]
        for name, column in zip(row.schema.names, row.columns, strict=True)
        if column.type in _AS_BYTES
    }
    return failed("not UTF-8", error, repr(shown).encode())


_AS_BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}


def _without_nan(batch: pa.RecordBatch) -> pa.RecordBatch:
    """NaN becomes null, as in JSON: writers mean a value that is missing."""
    columns = [
        pc.if_else(pc.is_nan(column), None, column) if pa.types.is_floating(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


class _ColumnsError(ValueError):
    pass


def _check_names(schema: pa.Schema) -> None:
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise _ColumnsError(f"has more than one column {', '.join(twice)}. Rename one")


@contextmanager
def _damage_told(kind: str) -> Iterator[None]:
    """Arrow's words for a file that it cannot read, after ours."""
    try:
        yield
    except (FileNotFoundError, PermissionError, _ColumnsError):
        raise
    except (pa.ArrowInvalid, OSError) as error:
        if "AWS Error" in str(error):
            raise
        raise ValueError(f"is no {kind} file, or damaged: {error}") from error
