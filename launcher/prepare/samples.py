"""From the columns of a row to a sample: chat messages, a text with a label, or a text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from launcher.prepare.cleaning import clean
from launcher.prepare.unusable import Unusable
from recipes.data import Data
from recipes.recipe import Recipe

_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A cleaned sample: `messages`, or `text` with or without a `label`."""

    messages: list[dict[str, str]] | None = None
    text: str | None = None
    label: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Sample:
        return cls(**json.loads(text))

    def said(self) -> str:
        """All that it says, for near duplicates."""
        if self.messages is None:
            return self.text or ""
        return "\n".join(message["content"] for message in self.messages)

    def digest(self) -> bytes:
        """16 bytes that equal samples share."""
        return _digest(self.to_json())

    def question_digest(self) -> bytes:
        """16 bytes that samples with the same input share, whatever their answer or label."""
        if self.messages is None:
            return _digest(json.dumps(self.text))
        return _digest(json.dumps(self.messages[:-1]))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def to_sample(columns: Mapping[str, Any], recipe: Recipe) -> Sample:
    """The sample of a row. Raises `Unusable` with the reason it has none."""
    data = recipe.data
    kind = data.format if data.format != "auto" else _recognise(columns, data)
    if kind == "messages":
        sample = Sample(messages=_messages(columns, data))
    else:
        text = clean(text_of(columns, column("text", data)), data.clean)
        label = _label(columns, data) if kind == "text_label" else None
        if recipe.task == "causal_lm" and label is not None:
            sample = Sample(messages=as_chat(text, label, data.system))
        else:
            sample = Sample(text=text, label=label)
    if recipe.task == "sequence_classification" and sample.label is None:
        raise Unusable("no label", f"columns: {', '.join(map(str, columns))}")
    _check_length(sample)
    return sample


def column(name: str, data: Data) -> str:
    """What the rows call a column."""
    return data.columns.get(name, name)


def _recognise(columns: Mapping[str, Any], data: Data) -> str:
    if column("messages", data) in columns:
        return "messages"
    if column("text", data) in columns:
        return "text_label" if column("label", data) in columns else "text"
    raise Unusable("no known column", f"columns: {', '.join(map(str, columns))}")


def text_of(columns: Mapping[str, Any], name: str) -> str:
    """The text in a column. Raises `Unusable`."""
    if name not in columns:
        raise Unusable("no known column", f"no {name}; columns: {', '.join(map(str, columns))}")
    value = columns[name]
    if not isinstance(value, str):
        raise Unusable("no text", f"{name} is {type(value).__name__}")
    return value


def _label(columns: Mapping[str, Any], data: Data) -> str:
    value = columns.get(column("label", data))
    if value is None or not str(value).strip():
        raise Unusable("no label", f"{column('label', data)} is empty")
    label = str(value).strip()
    if data.labels and label not in data.labels:
        raise Unusable("unknown label", label[:100])
    return label


def as_chat(text: str, answer: str | None, system: str | None) -> list[dict[str, str]]:
    """A text and its answer as a chat; without an answer, up to where it begins."""
    first = [{"role": "system", "content": system}] if system is not None else []
    last = [{"role": "assistant", "content": answer}] if answer is not None else []
    return [*first, {"role": "user", "content": text}, *last]


def messages_of(columns: Mapping[str, Any], data: Data) -> list[dict[str, str]]:
    """The cleaned messages of a row, whoever has the last word. Raises `Unusable`."""
    value = columns.get(column("messages", data))
    if not isinstance(value, list) or not value:
        raise Unusable("no messages", f"{column('messages', data)} is {type(value).__name__}")
    return [_message(number, message, data) for number, message in enumerate(value)]


def with_system(messages: list[dict[str, str]], system: str | None) -> list[dict[str, str]]:
    """The chat with a system message before it, unless it has one."""
    if system is None or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": system}, *messages]


def _messages(columns: Mapping[str, Any], data: Data) -> list[dict[str, str]]:
    messages = messages_of(columns, data)
    if messages[-1]["role"] != "assistant":
        raise Unusable("no answer", f"the last message is by {messages[-1]['role']}")
    if len(messages) == 1:
        raise Unusable("no question", "there is but one message")
    return with_system(messages, data.system)


def _message(number: int, message: Any, data: Data) -> dict[str, str]:
    if not isinstance(message, dict):
        raise Unusable("bad message", f"message {number} is {type(message).__name__}")
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise Unusable("bad message", f"message {number} has the role {role!r}")
    if not isinstance(content, str):
        raise Unusable("bad message", f"message {number} has {type(content).__name__} content")
    return {"role": role, "content": clean(content, data.clean)}


def _check_length(sample: Sample) -> None:
    empty = sample.messages is not None and not sample.messages[-1]["content"].strip()
    if empty or (sample.messages is None and not (sample.text or "").strip()):
        raise Unusable("empty")
