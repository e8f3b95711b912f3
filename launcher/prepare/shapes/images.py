"""Images beside a chat: where they lie, not what they show."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from launcher.prepare.unusable import Unusable
from recipes.files import whole_path

PLACEHOLDER = "<image>"
"""Where an image stands in a text, in rows that hold their images in a column of their own."""

KeepImage = Callable[[bytes], str]
"""Takes an image that came as bytes, and says where it will lie."""

_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
)


def name_of_image(data: bytes) -> str:
    """Where an image of these bytes lies in prepared data: `images/<sha256>.<kind>`. Raises
    `Unusable` for bytes of no kind of image that is known."""
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    kinds = (kind for begin, kind in _BEGINNINGS if data.startswith(begin))
    kind = "webp" if is_webp else next(kinds, None)
    if kind is None:
        raise Unusable("bad image", f"{len(data)} bytes that begin with {data[:8].hex()}")
    return f"images/{hashlib.sha256(data).hexdigest()}.{kind}"


def keep_in(folder: Path) -> KeepImage:
    """Writes images that come as bytes into a folder, each once, by the hash of its content."""

    def keep(data: bytes) -> str:
        name = name_of_image(data)
        file = folder / name
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            with whole_path(file) as aside:
                aside.write_bytes(data)
        return name

    return keep


def image_of(value: Any, keep: KeepImage) -> str:
    """Where an image lies that a row gives as a path, an address, bytes, or an object with one of
    these. Raises `Unusable`."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in _KEYS if value.get(key)), None)
        if isinstance(value, Mapping):  # OpenAI's {image_url: {url: …}}
            value = value.get("url")
    if isinstance(value, bytes):
        return keep(value)
    if not isinstance(value, str) or not value.strip():
        raise Unusable("bad image", f"{type(value).__name__} is no path, address or bytes")
    if not value.startswith("data:"):
        return value
    try:
        return keep(base64.b64decode(value.partition("base64,")[2], validate=True))
    except (binascii.Error, ValueError) as error:
        raise Unusable("bad image", f"a data: address that is not base64: {error}") from error


_KEYS = ("bytes", "path", "url", "image_url", "image")


def images_of(value: Any, keep: KeepImage) -> list[str]:
    """The images of a column, which holds one or a list. Raises `Unusable`."""
    if value is None:
        return []
    return [image_of(item, keep) for item in (value if isinstance(value, list) else [value])]


def split_placeholders(text: str) -> list[dict[str, Any]]:
    """The parts of a text with an image at each placeholder."""
    parts: list[dict[str, Any]] = []
    for number, piece in enumerate(text.split(PLACEHOLDER)):
        if number:
            parts.append({"type": "image"})
        if piece.strip():
            parts.append({"type": "text", "text": piece})
    return parts
