"""A chat as its template writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import Environment, TemplateSyntaxError

from adapters.light_tokenizer import LightTokenizer
from adapters.tokenizer import read_template
from launcher.prepare.rendering.rendered import Span
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

    tokenizer: LightTokenizer
    messages: Sequence[Message]
    tools: Sequence[dict[str, Any]] | None = None
    has_images: bool = False

    def with_messages(self, messages: Sequence[Message]) -> Chat:
        return replace(self, messages=messages)

    def write(self, *, prompt: bool = False) -> str:
        """Its text; with `prompt`, up to where the assistant's answer begins.

        Raises `Unusable` with what the template says when it takes no such chat.
        """
        return self._write(prompt=prompt, marked=False)[0]

    def write_marked(self) -> tuple[str, list[Span] | None]:
        """Its text, and what in it is the assistant's where the template says that itself, by
        `{% generation %}`; None where it does not. Raises `Unusable` likewise."""
        return self._write(prompt=False, marked=True)

    def _write(self, *, prompt: bool, marked: bool) -> tuple[str, list[Span] | None]:
        # Takes half a second once in a process, and no torch.
        from transformers.utils import chat_template_utils

        fill: Any = chat_template_utils.render_jinja_template
        try:
            if not self.messages:
                raise ValueError("it is empty")
            template = self.tokenizer.template(self.tools)
            marks = marked and _GENERATION.search(template) is not None
            [text], found = fill(
                conversations=[self._given()],
                tools=list(self.tools) if self.tools else None,
                chat_template=_CLOCK + template if "strftime_now" in template else template,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=marks,
                **self.tokenizer.named_tokens,
            )
        except Exception as error:  # templates raise what they like, jinja2.TemplateError mostly
            told = str(error).splitlines() or [type(error).__name__]
            raise Unusable("chat template refuses", told[0]) from error
        return text, found[0] if marks else None

    def _given(self) -> list[Message]:
        """The messages as a template is given them: without what is None, which many write as a
        word. Where there are images every content is a list, as templates of such models expect
        it."""
        return [
            {
                key: self._content(value) if key == "content" else value
                for key, value in message.items()
                if key != "train" and value is not None
            }
            for message in self.messages
        ]

    def _content(self, content: Any) -> Any:
        if self.has_images and isinstance(content, str):
            return [{"type": "text", "text": content}]
        return content


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


def check_no_special(chat: Chat) -> None:
    """Raises `Unusable` when a message, a call or a tool spells a special token, such as
    `<|im_end|>`: the tokenizer would read it as that token, and the chat would end there."""
    special = chat.tokenizer.special
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
