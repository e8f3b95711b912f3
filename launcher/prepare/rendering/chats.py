"""Chats as token ids, with the loss on what the assistant says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tokenizers import Encoding

from adapters.light_tokenizer import LightTokenizer
from launcher.prepare.rendering.answers import check_calls, find_answers
from launcher.prepare.rendering.rendered import Offsets, Rendered, Span, labelled
from launcher.prepare.rendering.written import Chat, check_no_special
from launcher.prepare.shapes.sample import Message
from launcher.prepare.unusable import Unusable
from trainer.shards import IGNORED


def render_chat(
    tokenizer: LightTokenizer,
    messages: Sequence[Message],
    *,
    tools: Sequence[dict[str, Any]] | None = None,
    images: Sequence[str] = (),
    longest: int | None = None,
) -> Rendered:
    """A chat with its loss on what the assistant says, the end of its turn included, but for the
    messages that say `train: False`. Of what comes after `longest` tokens it may be left out what
    is learnt: to find that takes a writing of the chat for each answer.

    The ids are those of the template's text. Where no special token ends the last turn the
    tokenizer's end token is put there, or a model would never learn to stop. Raises `Unusable` when
    the template takes no such chat.
    """
    chat = Chat(tokenizer=tokenizer, messages=messages, tools=tools, has_images=bool(images))
    check_no_special(chat)
    text, marked = chat.write_marked()
    if images and "{'type': 'image'" in text:
        raise Unusable("chat template refuses", "it has no place for images")
    check_calls(chat, text)
    found = tokenizer.backend.encode(text, special=False)
    ids = found.ids
    if not ids:
        raise Unusable("empty", "the template writes nothing")
    if marked is not None:
        labels = _by_template(chat, text, found, marked)
        return Rendered(input_ids=ids, labels=labels, images=list(images))
    until = found.offsets[longest][0] if longest is not None and longest < len(ids) else None
    answers = find_answers(chat, text, until)
    learnt = [span for number, span in answers.spans.items() if messages[number].get("train", True)]
    labels = labelled(ids, found.offsets, learnt)
    if not answers.ended and tokenizer.eos_token_id is not None:
        is_learnt = messages[-1].get("train", True)
        ids.append(tokenizer.eos_token_id)
        labels.append(tokenizer.eos_token_id if is_learnt else IGNORED)
    return Rendered(input_ids=ids, labels=labels, images=list(images))


def _by_template(chat: Chat, text: str, found: Encoding, marked: Sequence[Span]) -> list[int]:
    """What the template marks by `{% generation %}`, without the runs of it that are answers from
    which nothing is learnt."""
    ids, offsets = found.ids, found.offsets
    mask = _mask(found, marked)
    if any(not message.get("train", True) for message in chat.messages):
        spans = find_answers(chat, text).spans
        unlearnt = [
            span for number, span in spans.items() if not chat.messages[number].get("train", True)
        ]
        mask = _without(mask, offsets, unlearnt)
    labels = [token if said else IGNORED for token, said in zip(ids, mask, strict=True)]
    return [IGNORED, *labels[1:]]


def _mask(found: Encoding, spans: Sequence[Span]) -> list[int]:
    """For each token whether it is of a span (1) or not (0), as `apply_chat_template` of
    transformers has it in its `assistant_masks`."""
    mask = [0] * len(found.ids)
    for begin, end in spans:
        first, last = found.char_to_token(begin), found.char_to_token(end - 1)
        if first is None:
            break
        after = last + 1 if last is not None else len(mask)
        mask[first:after] = [1] * (after - first)
    return mask


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
    tokenizer: LightTokenizer,
    messages: Sequence[Message],
    *,
    tools: Sequence[dict[str, Any]] | None = None,
    prompt: bool = False,
    has_images: bool = False,
) -> list[int]:
    """A chat as token ids; with `prompt`, up to where the assistant's answer begins."""
    chat = Chat(tokenizer=tokenizer, messages=messages, tools=tools, has_images=has_images)
    [ids] = tokenizer.backend.ids_of([chat.write(prompt=prompt)], special=False)
    return ids
