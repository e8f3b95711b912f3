"""What every shape of rows becomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recipes.data.shapes import Shape

Message = dict[str, Any]
"""One message of a chat: `role` (system, user, assistant or tool) and `content`, a text or, where
there are images, a list of `{type: text, text}` and `{type: image}`; with `tool_calls`,
`tool_call_id`, `name` and `reasoning_content` where it has them, and `train: False` for an answer
that nothing is learnt from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample. A chat has `messages`; anything else a `text`, which follows a `prompt` that
    nothing is learnt from, or has a label."""

    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None
    """What the assistant can call, as JSON schemas of functions."""
    prompt: str | None = None
    """Of a plain text: what comes before `text`."""
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    labels: list[str] | None = None
    """Of a text that can have several, sorted."""
    rejected: str | list[Message] | None = None
    """Of a preference, the worse of two: what stands in the place of `text`, or of `messages`."""
    images: list[str] | None = None
    """Paths, addresses, or `images/<sha256>.<kind>` for those that came as bytes, in the order of
    the messages' images."""

    def to_json(self) -> str:
        """Exactly this sample, without what it does not have."""
        given = {
            name: value for name in self.__slots__ if (value := getattr(self, name)) is not None
        }
        return _ENCODER.encode(given)

    @classmethod
    def from_json(cls, text: str) -> Sample:
        return cls(**json.loads(text))

    def digest(self) -> bytes:
        """16 bytes that equal samples share."""
        return digest_of(self.to_json())

    def question_digest(self) -> bytes:
        """16 bytes that samples with the same input share, whatever their answer or label."""
        if self.messages is not None:
            asked: Any = [_untold(message) for message in self.messages[:-1]]
        elif self.prompt is not None:
            asked = self.prompt
        elif self.text_pair is not None:
            asked = [self.text, self.text_pair]
        else:
            asked = self.text
        beside = [value for value in (self.tools, self.images) if value]
        return digest_of(json.dumps([asked, *beside] if beside else asked))

    def texts(self) -> str:
        """What it says, for looking whether two say nearly the same. Without system messages, which
        many samples share."""
        if self.messages is not None:
            said = [
                text
                for message in self.messages
                if message["role"] != "system"
                for text in texts_of(message)
            ]
        else:
            said = [text for text in (self.prompt, self.text, self.text_pair) if text is not None]
        return "\n".join(said)

    def map_texts(self, change: Callable[[str], str]) -> Sample:
        """The sample with each of its texts changed. Names, ids, labels and what is given to tools
        are no texts."""

        def changed(text: str | None) -> str | None:
            return change(text) if text is not None else None

        def chat(messages: Sequence[Message]) -> list[Message]:
            return [map_message(message, change) for message in messages]

        rejected = self.rejected
        return replace(
            self,
            messages=chat(self.messages) if self.messages is not None else None,
            prompt=changed(self.prompt),
            text=changed(self.text),
            text_pair=changed(self.text_pair),
            rejected=chat(rejected) if isinstance(rejected, list) else changed(rejected),
        )

    def with_texts(self, change: Callable[[Sequence[str]], Sequence[str]]) -> Sample:
        """The same with all of its texts changed at once."""
        if self.is_one_text:  # most samples are, and this is quicker
            assert self.text is not None
            return Sample(
                text=change([self.text])[0],
                label=self.label,
                labels=self.labels,
                tools=self.tools,
                images=self.images,
            )
        return changed_together(self.map_texts, change)

    @property
    def is_one_text(self) -> bool:
        """Whether it is a text alone, which may have labels."""
        others = (self.messages, self.prompt, self.text_pair, self.rejected)
        return self.text is not None and all(other is None for other in others)

    @property
    def only_prepared(self) -> Shape | None:
        """The shape of a sample that can be prepared but not trained on yet; None of others."""
        if self.rejected is not None:
            return "preference"
        return "image_text" if self.images else None


def changed_together(
    make: Callable[[Callable[[str], str]], Sample],
    change: Callable[[Sequence[str]], Sequence[str]],
) -> Sample:
    """The sample that `make` makes with a function for each text, such as `map_texts`, when all of
    its texts are changed at once."""
    texts: list[str] = []

    def note(text: str) -> str:
        texts.append(text)
        return text

    make(note)
    changed = iter(change(texts))
    return make(lambda text: next(changed))


def texts_of(message: Message) -> Iterator[str]:
    """What a message says, the reasoning before it first."""
    if "reasoning_content" in message:
        yield message["reasoning_content"]
    content = message["content"]
    if isinstance(content, str):
        yield content
    else:
        yield from (part["text"] for part in content if part["type"] == "text")


def map_message(message: Message, change: Callable[[str], str]) -> Message:
    """The message with each of its texts changed. An empty text stands for none and stays."""

    def changed(text: str) -> str:
        return change(text) if text else text

    made = dict(message)
    if "reasoning_content" in message:
        made["reasoning_content"] = changed(message["reasoning_content"])
    content = message["content"]
    if isinstance(content, str):
        made["content"] = changed(content)
    else:
        made["content"] = [
            {**part, "text": changed(part["text"])} if part["type"] == "text" else part
            for part in content
        ]
    return made


def _untold(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != "train"}


_ENCODER = json.JSONEncoder(ensure_ascii=False)


def digest_of(text: str) -> bytes:
    """16 bytes that equal texts share; of the JSON of a sample, its digest."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
