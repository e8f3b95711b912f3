"""How large a packed file is unpacked, by what its own bytes say."""

from __future__ import annotations

from launcher.prepare.sources.source import Source, open_source

# Chats and articles as jsonl, with gzip's and zstd's usual levels; a guess where nothing is said.
_USUAL = 3
# gzip keeps the size modulo 4 GiB.
_GZIP_SURE_BYTES = 2**30

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_HEADER_BYTES = 18


def unpacked_bytes(source: Source) -> int:
    """About how many bytes a file has when it is unpacked; exact for one that is not packed, and
    for most that one call of gzip or zstd has written. Depends on the file's bytes alone, so it is
    the same on every machine. Raises `OSError` and what else storage raises."""
    if source.compression is None:
        return source.bytes
    told = _gzip_told(source) if source.compression == "gzip" else _zstd_told(source)
    # Less than packed: the size of the last of several members, or of the first of several frames.
    return told if told > source.bytes else _USUAL * source.bytes


def _gzip_told(source: Source) -> int:
    """RFC 1952: the last four bytes of a member are its size modulo 2^32."""
    if source.bytes > _GZIP_SURE_BYTES:
        return 0
    with open_source(source) as stream:
        stream.seek(max(0, source.bytes - 4))
        return int.from_bytes(stream.read(4), "little")


def _zstd_told(source: Source) -> int:
    """RFC 8878, 3.1.1.1: a frame's header says how large its content is, if its writer knew."""
    with open_source(source) as stream:
        header = stream.read(_ZSTD_HEADER_BYTES)
    if len(header) < _ZSTD_HEADER_BYTES or not header.startswith(_ZSTD_MAGIC):
        return 0
    described = header[4]
    is_one_segment = bool(described & 0x20)
    sizes = (1 if is_one_segment else 0, 2, 4, 8)
    size = sizes[described >> 6]
    place = 5 + (not is_one_segment) + (0, 1, 2, 4)[described & 3]
    content = int.from_bytes(header[place : place + size], "little")
    return content + 256 if size == 2 else content
