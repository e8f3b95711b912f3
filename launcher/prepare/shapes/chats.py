"""The sample of a row as its shape says it, before it is cleaned. Answers may be missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from launcher.prepare.shapes.calls import tools_of
from launcher.prepare.shapes.columns import Columns, plain_json
from launcher.prepare.shapes.images import (
    PLACEHOLDER,
    KeepImage,
    images_of,
    split_placeholders,
)
from launcher.prepare.shapes.labels import label_of, labels_of
from launcher.prepare.shapes.messages import messages_of, with_system
from launcher.prepare.shapes.sample import Message, Sample, texts_of
from launcher.prepare.unusable import Unusable
from recipes.data.shapes import Shape


def _text(columns: Columns, keep: KeepImage) -> Sample:
    return Sample(text=columns.text("text"))


def _text_label(columns: Columns, keep: KeepImage) -> Sample:
    return Sample(text=columns.text("text"), label=label_of(columns))


def _text_labels(columns: Columns, keep: KeepImage) -> Sample:
    return Sample(text=columns.text("text"), labels=labels_of(columns))


def _text_pair(columns: Columns, keep: KeepImage) -> Sample:
    return Sample(
        text=columns.text("text"), text_pair=columns.text("text_pair"), label=label_of(columns)
    )


def _chat(columns: Columns, keep: KeepImage) -> Sample:
    columns.check("messages")
    messages, images = messages_of(columns.get("messages"), columns.name_of("messages"), keep)
    return Sample(
        messages=with_system(messages, columns.text_or_none("system")),
        tools=tools_of(columns.get("tools")),
        images=images or None,
    )


def _alpaca(columns: Columns, keep: KeepImage) -> Sample:
    """`input` is what the instruction is about, and comes in a line of its own after it."""
    about = columns.text_or_none("input")
    asked = columns.text("instruction")
    messages = [
        *_history(columns.get("history")),
        {"role": "user", "content": f"{asked}\n{about}" if about else asked},
        *_answer(columns, "output"),
    ]
    return Sample(messages=with_system(messages, columns.text_or_none("system")))


def _history(value: Any) -> list[Message]:
    """Earlier turns, as pairs of what was asked and answered."""
    if isinstance(value, str) and value:
        value = plain_json(value, "bad history", "history")
    if value in (None, "", []):
        return []
    if not isinstance(value, list):
        raise Unusable("bad history", f"history is {type(value).__name__}")
    messages: list[Message] = []
    for number, pair in enumerate(value):
        is_pair = isinstance(pair, list) and [type(text) for text in pair] == [str, str]
        if not is_pair:
            raise Unusable("bad history", f"turn {number} is no pair of texts")
        messages += [
            {"role": "user", "content": pair[0]},
            {"role": "assistant", "content": pair[1]},
        ]
    return messages


def _answer(columns: Columns, name: str) -> list[Message]:
    if columns.get(name) is None:
        return []
    return [{"role": "assistant", "content": columns.text(name)}]


def _prompt_completion(columns: Columns, keep: KeepImage) -> Sample:
    """Two texts, which are gone on with as they stand; or two lists of messages, a chat."""
    if not isinstance(columns.get("prompt"), list):
        completion = columns.get("completion")
        text = columns.text("completion") if completion is not None else None
        return Sample(prompt=columns.text("prompt"), text=text)
    messages, images = messages_of(columns.get("prompt"), columns.name_of("prompt"), keep)
    if columns.get("completion") is not None:
        messages, images = _continued(columns, "completion", messages, images, keep)
    tools = tools_of(columns.get("tools"))
    return Sample(messages=messages, tools=tools, images=images or None)


def _continued(
    columns: Columns, name: str, before: list[Message], images: list[str], keep: KeepImage
) -> tuple[list[Message], list[str]]:
    """A chat with the messages of a column, or its text as an answer, after those before."""
    if isinstance(columns.get(name), list):
        after, more = messages_of(columns.get(name), columns.name_of(name), keep)
        return [*before, *after], [*images, *more]
    return [*before, {"role": "assistant", "content": columns.text(name)}], images


def _preference(columns: Columns, keep: KeepImage) -> Sample:
    """Two answers to one prompt: as texts, or as messages, which may begin with the prompt's."""
    prompt = columns.get("prompt")
    is_chat = isinstance(columns.get("chosen"), list) or isinstance(prompt, list)
    if not is_chat:
        sample = Sample(
            prompt=columns.text_or_none("prompt"),
            text=columns.text("chosen"),
            rejected=columns.text("rejected"),
        )
        if sample.text == sample.rejected:
            raise Unusable("no preference", "chosen and rejected are the same")
        return sample
    before: list[Message] = []
    images: list[str] = []
    if isinstance(prompt, str):
        before = [{"role": "user", "content": prompt}]
    elif prompt is not None:
        before, images = messages_of(prompt, columns.name_of("prompt"), keep)
    chosen, of_chosen = _side(columns, "chosen", before, keep)
    rejected, of_rejected = _side(columns, "rejected", before, keep)
    if chosen == rejected:
        raise Unusable("no preference", "chosen and rejected are the same")
    if of_chosen != of_rejected or _asked(chosen) != _asked(rejected):
        raise Unusable("no preference", "chosen and rejected answer different questions")
    if rejected[-1]["role"] != "assistant":
        raise Unusable("no answer", f"the last message of rejected is by {rejected[-1]['role']}")
    system, tools = columns.text_or_none("system"), tools_of(columns.get("tools"))
    return Sample(
        messages=with_system(chosen, system),
        rejected=with_system(rejected, system),
        tools=tools,
        images=[*images, *of_chosen] or None,
    )


def _side(
    columns: Columns, name: str, before: list[Message], keep: KeepImage
) -> tuple[list[Message], list[str]]:
    """One of the two chats whole, whether its column repeats the prompt or not."""
    if not isinstance(columns.get(name), list):
        return _continued(columns, name, before, [], keep)
    messages, images = messages_of(columns.get(name), columns.name_of(name), keep)
    repeats = before and messages[: len(before)] == before
    return (messages if repeats else [*before, *messages]), images


def _asked(messages: list[Message]) -> list[Message]:
    """Up to the last thing that was not said by the assistant: two answers may differ in more than
    one message."""
    last = max((n for n, m in enumerate(messages) if m["role"] == "user"), default=-1)
    return messages[: last + 1]


def _image_text(columns: Columns, keep: KeepImage) -> Sample:
    """A chat with images in a column or in its messages; or a caption, which answers an image."""
    images = images_of(columns.get("images"), keep)
    if columns.has("messages"):
        sample = _chat(columns, keep)
        assert sample.messages is not None
        images = images or sample.images or []
        if not images and not _asks_for_images(sample.messages):
            return sample  # of a mixture, not every chat has one
        messages = _placed(sample.messages, len(images))
        return Sample(messages=messages, tools=sample.tools, images=images)
    asked: Message = {"role": "user", "content": [{"type": "image"} for _ in images]}
    messages = _placed([asked, *_answer(columns, "text")], len(images))
    return Sample(messages=messages, images=images)


def _placed(messages: list[Message], count: int) -> list[Message]:
    """Messages with a place for each image: as they have them, or at `<image>` in their texts, or
    before the first thing a person says."""
    if not count:
        raise Unusable("bad image", "the row has none")
    if not _places(messages):
        messages = [
            {**message, "content": split_placeholders(message["content"])}
            if isinstance(message["content"], str) and PLACEHOLDER in message["content"]
            else message
            for message in messages
        ]
    first = next((n for n, message in enumerate(messages) if message["role"] == "user"), None)
    if not _places(messages) and first is not None:
        text = {"type": "text", "text": messages[first]["content"]}
        content = [*({"type": "image"} for _ in range(count)), text]
        with_places = {**messages[first], "content": content}
        messages = [*messages[:first], with_places, *messages[first + 1 :]]
    if _places(messages) != count:
        raise Unusable("bad image", f"{count} images for {_places(messages)} places")
    return messages


def _asks_for_images(messages: list[Message]) -> bool:
    spelled = any(PLACEHOLDER in text for message in messages for text in texts_of(message))
    return spelled or _places(messages) > 0


def _places(messages: list[Message]) -> int:
    return sum(
        part["type"] == "image"
        for message in messages
        if isinstance(message["content"], list)
        for part in message["content"]
    )


MAKERS: Mapping[Shape, Callable[[Columns, KeepImage], Sample]] = {
    "text": _text,
    "text_label": _text_label,
    "text_labels": _text_labels,
    "text_pair": _text_pair,
    "messages": _chat,
    "sharegpt": _chat,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "preference": _preference,
    "image_text": _image_text,
}
"""What makes a sample of a row of each shape."""
