"""A chat as its template writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from jinja2 import Environment, TemplateSyntaxError

from adapters.tokenizer import read_template
from launcher.prepare.shapes.sample import Message, texts_of
from launcher.prepare.unusable import Unusable
from recipes.errors import DataError

_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")

# Llama 3 and others write the day into the system message. What is prepared would be other bytes
# each day, and be asked with another day than it was trained on; so it is always the one that they
# write where there is no clock.
_DAY = {"d": "26", "b": "Jul", "B": "July", "m": "07", "Y": "2024", "y": "24", "A": "Friday"}
_DAY |= {"a": "Fri", "H": "00", "M": "00", "S": "00"}
_CLOCK = (
    "{%- macro strftime_now(format) -%}{{- format"
    + "".join(f" | replace('%{letter}', '{value}')" for letter, value in _DAY.items())
    + " -}}{%- endmacro -%}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """Messages, the tools they may call, and the tokenizer whose template writes them."""

    tokenizer: Any
    messages: Sequence[Message]
    tools: Sequence[dict[str, Any]] | None = None
    has_images: bool = False

    def with_messages(self, messages: Sequence[Message]) -> Chat:
        return replace(self, messages=messages)

    def write(self, *, prompt: bool = False) -> str:
        """Its text; with `prompt`, up to where the assistant's answer begins.

        Raises `Unusable` with what the template says when it takes no such chat.
        """
        text: str = self._apply(add_generation_prompt=prompt, tokenize=False)
        return text

    def marked(self) -> list[int]:
        """Of a template that marks answers, for each token whether it is one (1) or not (0)."""
        return list(
            self._apply(return_dict=True, return_assistant_tokens_mask=True)["assistant_masks"]
        )

    def _apply(self, **options: Any) -> Any:
        try:
            template = self._template()
            return self.tokenizer.apply_chat_template(
                self._given(),
                tools=list(self.tools) if self.tools else None,
                chat_template=_CLOCK + template if "strftime_now" in template else template,
                **options,
            )
        except Exception as error:  # templates raise what they like, jinja2.TemplateError mostly
            told = str(error).splitlines() or [type(error).__name__]
            raise Unusable("chat template refuses", told[0]) from error

    def _template(self) -> str:
        found: str = self.tokenizer.get_chat_template(tools=self.tools)
        return found

    def _given(self) -> list[Message]:
        """The messages as a template is given them. Where there are images every content is a
        list, as templates of such models expect it."""
        return [
            {key: self._content(value) if key == "content" else value for key, value in own.items()}
            for message in self.messages
            for own in [{key: value for key, value in message.items() if key != "train"}]
        ]

    def _content(self, content: Any) -> Any:
        if self.has_images and isinstance(content, str):
            return [{"type": "text", "text": content}]
        return content

    def marks_answers(self) -> bool:
        """Whether the template says itself what is the assistant's, by `{% generation %}`."""
        return _GENERATION.search(self._template()) is not None


def check_template(file: str) -> None:
    """Raises `DataError` when a file holds no template, with the line."""
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        # transformers adds this block, which wraps others and has no options.
        environment.parse(_GENERATION.sub("", read_template(file) or ""))
    except TemplateSyntaxError as error:
        raise DataError(
            f"data.chat_template = {file}, line {error.lineno}: {error.message}"
        ) from error


@lru_cache(maxsize=4)
def special_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """Finds the special tokens of a tokenizer in a text, the longest where several begin."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    found = sorted({*added, *tokenizer.all_special_tokens} - {""}, key=lambda t: (-len(t), t))
    return re.compile("|".join(map(re.escape, found))) if found else None


def check_no_special(chat: Chat) -> None:
    """Raises `Unusable` when a message, a call or a tool spells a special token, such as
    `<|im_end|>`: the tokenizer would read it as that token, and the chat would end there."""
    special = special_tokens(chat.tokenizer)
    if special is None:
        return
    for where, text in _said(chat):
        if found := special.search(text):
            raise Unusable("special token in text", f"{found[0]} in {where}")


def _said(chat: Chat) -> Iterator[tuple[str, str]]:
    for number, message in enumerate(chat.messages):
        where = f"message {number}"
        yield from ((where, text) for text in texts_of(message))
        beside = {key: message[key] for key in _BESIDE if key in message}
        if beside:
            yield where, json.dumps(beside, ensure_ascii=False)
    if chat.tools:
        yield "tools", json.dumps(chat.tools, ensure_ascii=False)


_BESIDE = ("tool_calls", "tool_call_id", "name")
