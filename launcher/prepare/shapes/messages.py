"""The messages of a chat, written as OpenAI or as ShareGPT writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.prepare.shapes.calls import calls_of, calls_said
from launcher.prepare.shapes.columns import plain_json
from launcher.prepare.shapes.images import KeepImage, image_of
from launcher.prepare.shapes.sample import Message
from launcher.prepare.unusable import Unusable

_ROLES: Mapping[str, str] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
}
_TEXT_PARTS = ("text", "input_text", "output_text")
_IMAGE_PARTS = ("image", "image_url", "input_image")


def messages_of(value: Any, name: str, keep: KeepImage) -> tuple[list[Message], list[str]]:
    """The messages of a column, and the images that they hold. Raises `Unusable`."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # as CSV holds them
        value = plain_json(value, "no messages", name)
    if not isinstance(value, list) or not value:
        raise Unusable("no messages", f"{name} is {'empty' if value == [] else _kind(value)}")
    images: list[str] = []
    return [_message(f"message {n}", item, images, keep) for n, item in enumerate(value)], images


def with_system(messages: list[Message], system: str | None) -> list[Message]:
    """The chat with a system message before it, unless it has one."""
    if system is None or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": system}, *messages]


def _message(where: str, message: Any, images: list[str], keep: KeepImage) -> Message:
    if not isinstance(message, dict):
        raise Unusable("bad message", f"{where} is {_kind(message)}")
    said = message.get("role", message.get("from"))
    role = _ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise Unusable("bad message", f"{where} has the role {str(said)[:50]!r}")
    content = message.get("content", message.get("value"))
    made: Message = {"role": role, "content": ""}
    if said == "function_call":
        made["tool_calls"] = calls_said(content, where)
        return made | _flag(where, message)
    if role == "assistant":
        made |= _of_assistant(where, message)
    if content is not None:
        made["content"] = _content(where, content, images, keep)
    elif "tool_calls" not in made:
        raise Unusable("bad message", f"{where} has no content")
    for key in ("tool_call_id", "name"):
        if isinstance(message.get(key), str):
            made[key] = message[key]
    return made


def _of_assistant(where: str, message: Mapping[str, Any]) -> Message:
    made: Message = {}
    reasoning = message.get("reasoning_content")
    if reasoning is not None:
        if not isinstance(reasoning, str):
            raise Unusable("bad message", f"{where} has {_kind(reasoning)} reasoning_content")
        made["reasoning_content"] = reasoning
    if calls := calls_of(message, where):
        made["tool_calls"] = calls
    return made | _flag(where, message)


def _flag(where: str, message: Mapping[str, Any]) -> Message:
    """`train: False` where a message says so, or has the weight 0; nothing where it is learnt."""
    for key in ("train", "weight"):
        value = message.get(key)
        if value is None:
            continue
        if value not in (0, 1):  # False and True are these
            raise Unusable("bad message", f"{where} has {key} = {str(value)[:50]}")
        if not value:
            return {"train": False}
    return {}


def _content(where: str, content: Any, images: list[str], keep: KeepImage) -> Any:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Unusable("bad message", f"{where} has {_kind(content)} content")
    parts = [_part(where, part, images, keep) for part in content]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(where: str, part: Any, images: list[str], keep: KeepImage) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind in _IMAGE_PARTS:
        if any(part.get(key) for key in ("bytes", "path", "url", "image_url", "image")):
            images.append(image_of(part, keep))
        return {"type": "image"}
    raise Unusable("bad message", f"{where} has a part of content that is neither text nor image")


def _kind(value: Any) -> str:
    return type(value).__name__
