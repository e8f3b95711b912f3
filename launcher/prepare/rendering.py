"""From a sample to token ids and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from launcher.prepare.samples import Sample
from launcher.prepare.unusable import Unusable
from trainer.shards import IGNORED


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Token ids and the label of each token, `IGNORED` where nothing is learnt; the same length.

    The first token is never supervised: nothing comes before it that could predict it.
    """

    input_ids: list[int]
    labels: list[int]

    @property
    def supervised(self) -> int:
        return sum(label != IGNORED for label in self.labels)


def render(tokenizer: Any, sample: Sample) -> Rendered:
    """A chat by the tokenizer's own template, loss on the assistant's tokens; or a plain text with
    its end, loss on every token. Raises `Unusable`."""
    if sample.messages is not None:
        return render_chat(tokenizer, sample.messages)
    ids = list(tokenizer(sample.text)["input_ids"])
    if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
        ids.append(tokenizer.eos_token_id)
    return Rendered(input_ids=ids, labels=[IGNORED, *ids[1:]])


def render_chat(tokenizer: Any, messages: Sequence[dict[str, str]]) -> Rendered:
    """A chat with its loss on what the assistant says, the end of its turn included."""
    if "{% generation" in tokenizer.chat_template or "{%- generation" in tokenizer.chat_template:
        rendered = tokenizer.apply_chat_template(
            list(messages), return_dict=True, return_assistant_tokens_mask=True
        )
        ids, spoken = list(rendered["input_ids"]), rendered["assistant_masks"]
    else:
        ids, spoken = _by_prefixes(tokenizer, messages)
    labels = [token if said else IGNORED for token, said in zip(ids, spoken, strict=True)]
    labels[0] = IGNORED
    return Rendered(input_ids=ids, labels=labels)


def _by_prefixes(tokenizer: Any, messages: Sequence[dict[str, str]]) -> tuple[list[int], list[int]]:
    """Most templates do not say which tokens are the assistant's. A turn of it is what a chat up to
    it has more than the chat before it with the prompt for an answer."""
    ids = token_ids(tokenizer, messages)
    spoken = [0] * len(ids)
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = token_ids(tokenizer, messages[:number], prompt=True)
        turn = token_ids(tokenizer, messages[: number + 1])
        if turn[: len(prompt)] != prompt or ids[: len(turn)] != turn:
            raise Unusable("template changes earlier turns", f"at message {number}")
        end = _end_of_turn(turn, len(prompt), set(tokenizer.all_special_ids))
        spoken[len(prompt) : end] = [1] * (end - len(prompt))
    return ids, spoken


def _end_of_turn(turn: Sequence[int], begin: int, special: set[int]) -> int:
    """After the last special token of the turn: a template's line end after it is not spoken."""
    for index in range(len(turn) - 1, begin - 1, -1):
        if turn[index] in special:
            return index + 1
    return len(turn)


def token_ids(
    tokenizer: Any, messages: Sequence[dict[str, str]], *, prompt: bool = False
) -> list[int]:
    """A chat as token ids; with `prompt`, up to where the assistant's answer begins."""
    try:
        rendered = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=prompt, return_dict=True
        )
    except Exception as error:  # templates raise what they like, jinja2.TemplateError mostly
        raise Unusable("chat template refuses", str(error).splitlines()[0]) from error
    return list(rendered["input_ids"])


def fit(rendered: Rendered, sequence_length: int, too_long: str) -> Rendered:
    """A sample that fits the sequence and has something to learn. Raises `Unusable`."""
    tokens = len(rendered.input_ids)
    if tokens > sequence_length:
        if too_long == "set_aside":
            raise Unusable("too long", f"{tokens} tokens")
        rendered = replace(
            rendered,
            input_ids=rendered.input_ids[:sequence_length],
            labels=rendered.labels[:sequence_length],
        )
    if rendered.supervised == 0:
        raise Unusable("no supervised token", f"{tokens} tokens")
    return rendered


def render_text(tokenizer: Any, text: str, sequence_length: int, too_long: str) -> list[int]:
    """A text to classify, with the tokenizer's special tokens. Raises `Unusable`."""
    ids = list(tokenizer(text)["input_ids"])
    if len(ids) > sequence_length:
        if too_long == "set_aside":
            raise Unusable("too long", f"{len(ids)} tokens")
        # The tokenizer's own truncation keeps the special token at the end.
        ids = list(tokenizer(text, truncation=True, max_length=sequence_length)["input_ids"])
    return ids
