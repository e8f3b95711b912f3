"""Chats as token ids, with the loss on what the assistant says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from launcher.prepare.rendering.answers import find_answers
from launcher.prepare.rendering.rendered import Offsets, Rendered, Span, labelled, tokenize
from launcher.prepare.rendering.written import Chat, check_no_special
from launcher.prepare.shapes.sample import Message
from launcher.prepare.unusable import Unusable
from trainer.shards import IGNORED


def render_chat(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    tools: Sequence[dict[str, Any]] | None = None,
    images: Sequence[str] = (),
) -> Rendered:
    """A chat with its loss on what the assistant says, the end of its turn included, but for the
    messages that say `train: False`.

    The ids are those of the template's text. Where no special token ends the last turn the
    tokenizer's end token is put there, or a model would never learn to stop. Raises `Unusable` when
    the template takes no such chat.
    """
    chat = Chat(tokenizer=tokenizer, messages=messages, tools=tools, has_images=bool(images))
    check_no_special(chat)
    text = chat.write()
    if images and "{'type': 'image'" in text:
        raise Unusable("chat template refuses", "it has no place for images")
    ids, offsets = tokenize(tokenizer, text, special=False)
    if not ids:
        raise Unusable("empty", "the template writes nothing")
    if chat.marks_answers():
        labels = _by_template(chat, text, ids, offsets)
        return Rendered(input_ids=ids, labels=labels, images=list(images))
    answers = find_answers(chat, text)
    learnt = [span for number, span in answers.spans.items() if messages[number].get("train", True)]
    labels = labelled(ids, offsets, learnt)
    if not answers.ended and tokenizer.eos_token_id is not None:
        is_learnt = messages[-1].get("train", True)
        ids.append(tokenizer.eos_token_id)
        labels.append(tokenizer.eos_token_id if is_learnt else IGNORED)
    return Rendered(input_ids=ids, labels=labels, images=list(images))


def _by_template(chat: Chat, text: str, ids: list[int], offsets: Offsets) -> list[int]:
    """What the template marks by `{% generation %}`, without the runs of it that are answers from
    which nothing is learnt."""
    mask = chat.marked()
    if any(not message.get("train", True) for message in chat.messages):
        spans = find_answers(chat, text).spans
        unlearnt = [
            span for number, span in spans.items() if not chat.messages[number].get("train", True)
        ]
        mask = _without(mask, offsets, unlearnt)
    labels = [token if said else IGNORED for token, said in zip(ids, mask, strict=True)]
    return [IGNORED, *labels[1:]]


def _without(mask: list[int], offsets: Offsets, spans: Sequence[Span]) -> list[int]:
    """A mask without its runs that stand for any character of the spans."""
    kept: list[int] = []
    for _, run in groupby(zip(mask, offsets, strict=True), key=lambda pair: pair[0]):
        pairs = list(run)
        begin, end = pairs[0][1][0], max(offset[1] for _, offset in pairs)
        is_out = any(begin < max(last, first + 1) and end > first for first, last in spans)
        kept += [0 if is_out else said for said, _ in pairs]
    return kept


def token_ids(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    tools: Sequence[dict[str, Any]] | None = None,
    prompt: bool = False,
) -> list[int]:
    """A chat as token ids; with `prompt`, up to where the assistant's answer begins."""
    chat = Chat(tokenizer=tokenizer, messages=messages, tools=tools)
    return list(tokenizer(chat.write(prompt=prompt), add_special_tokens=False)["input_ids"])
