"""The files of a base, and fingerprints of its three parts. Imports no torch.

What an adapter was trained on is more than weights: with another tokenizer the same text is other
tokens, and the adapter's answers are nonsense.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

PICKLES = "pytorch_model*.bin"
SAFETENSORS = "*.safetensors"
_INDEX = "*.index.json"
# Where transformers keeps templates with names, such as the one for chats with tools.
_TEMPLATES_BESIDE = "additional_chat_templates/*.jinja"
_TOKENIZER = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "chat_template*",
    _TEMPLATES_BESIDE,
)
FILES = ("*.json", "*.model", "*.txt", "*.jinja", _TEMPLATES_BESIDE, SAFETENSORS)
"""All that is used of a base, but for pickles."""
_WHOLE_BYTES = 64 * 2**20
_PIECE_BYTES = 2**20
_PIECES = 32


def files_of(folder: Path) -> dict[str, int]:
    """The files of a base that are used, from its folder on, with their sizes (bytes)."""
    found = {*_matching(folder, FILES), *weights_of(folder)}
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in sorted(found)}


def weights_of(folder: Path) -> list[Path]:
    """The files of the weights: pickles only where there are no safetensors."""
    return _matching(folder, [SAFETENSORS]) or _matching(folder, [PICKLES])


def is_pickled(folder: Path) -> bool:
    """Whether the weights are pickles."""
    return any(file.suffix == ".bin" for file in weights_of(folder))


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of the tokenizer, its chat templates among them."""
    used = {folder / name for name in files_of(folder)}
    return [file for file in _matching(folder, _TOKENIZER) if file in used]


def digests_of(folder: Path) -> dict[str, str]:
    """sha256 of each part of a base by what a person calls it (hex)."""
    return {
        "configuration": _digest([folder / "config.json"]),
        "weights": _digest([*weights_of(folder), *_matching(folder, [_INDEX])]),
        "tokenizer": _digest(tokenizer_files(folder)),
    }


def digest_of(folder: Path) -> str:
    """sha256 of the whole base (hex)."""
    return digest_of_parts(digests_of(folder))


def digest_of_parts(parts: Mapping[str, str]) -> str:
    """The same from the digests of its parts."""
    told = "".join(f"{part}:{digest};" for part, digest in sorted(parts.items()))
    return hashlib.sha256(told.encode()).hexdigest()


def sampled_sha256(file: Path) -> str:
    """sha256 of a file, of a large one as above, whatever its name (hex)."""
    total = hashlib.sha256(f"{file.stat().st_size}:".encode())
    for piece in _pieces(file):
        total.update(piece)
    return total.hexdigest()


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    found = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return sorted(found)


def _digest(files: Iterable[Path]) -> str:
    """Of a file above 64 MiB, its size and 32 pieces of 1 MiB: the whole of a 140 GB base would
    take minutes at every start."""
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name}:{file.stat().st_size}:".encode())
        for piece in _pieces(file):
            total.update(piece)
    return total.hexdigest()


def _pieces(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= _WHOLE_BYTES:
            yield stream.read()
            return
        for number in range(_PIECES):
            stream.seek(number * (size - _PIECE_BYTES) // (_PIECES - 1))
            yield stream.read(_PIECE_BYTES)
