"""What the user says and the assistant answers, where the recipe writes it with `{column}`s."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any

from launcher.prepare.shapes.columns import Columns
from launcher.prepare.shapes.images import KeepImage, images_of
from launcher.prepare.shapes.sample import Message, Sample
from launcher.prepare.unusable import Unusable
from recipes.data import Data
from recipes.data.prompts import fill, variables

_ANSWERS = ("answer", "completion", "response", "output", "label", "labels")
"""Where an answer is looked for that data.answer does not name, in this order."""

Clean = Callable[[str], str]


def as_chat(text: Any, answer: str | None, system: str | None) -> list[Message]:
    """A text and its answer as a chat; without an answer, up to where it begins."""
    first = [{"role": "system", "content": system}] if system is not None else []
    last = [{"role": "assistant", "content": answer}] if answer is not None else []
    return [*first, {"role": "user", "content": text}, *last]


def prompted(columns: Columns, data: Data, clean: Clean, keep: KeepImage, *, asked: bool) -> Sample:
    """A chat of data.prompt and data.answer. With `asked` the row may lack its answer; then the
    chat ends with the question.

    Which of several prompts is taken depends on nothing but the values that prompts name, so it is
    the same wherever the row stands, and the same when it is asked without its answer. Raises
    `Unusable` when a column is not there or holds no text.
    """

    # A filter looks at all texts of a row together, so each column is cleaned once, however many
    # prompts name it.
    @cache
    def value(name: str) -> str:
        return _value(columns, name, clean)

    names = [name for prompt in data.prompt for name in variables(prompt)]
    values = {name: value(name) for name in names}
    prompt = data.prompt[_choice(values, len(data.prompt))]
    text: Any = fill(prompt, values.__getitem__)
    images = images_of(columns.get("images"), keep) or images_of(columns.get("image"), keep)
    if images:
        text = [*({"type": "image"} for _ in images), {"type": "text", "text": text}]
    answer = _answer(columns, data, value, asked=asked)
    return Sample(messages=as_chat(text, answer, data.system), images=images or None)


def _choice(values: dict[str, str], count: int) -> int:
    content = json.dumps(values, sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()) % count


def _answer(
    columns: Columns, data: Data, value_of: Callable[[str], str], *, asked: bool
) -> str | None:
    if data.answer is not None:
        missing = [name for name in variables(data.answer) if columns.get(name) is None]
        if asked and missing:
            return None
        return fill(data.answer, value_of)
    found = next((name for name in _ANSWERS if columns.get(name) is not None), None)
    return value_of(found) if found is not None else None


def _value(columns: Columns, name: str, clean: Clean) -> str:
    """The text or number of a column; a label stays as it is, all other texts are cleaned."""
    if not columns.has(name):
        raise Unusable("unknown column in prompt", f"no {name}; {columns.told()}")
    value = columns.get(name)
    if isinstance(value, list) and name == "labels":
        return ", ".join(str(label) for label in value)
    if isinstance(value, str):
        return value.strip() if name in ("label", "labels") else clean(value)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    raise Unusable("no text", f"{columns.name_of(name)} is {type(value).__name__}")
