"""From a sample to sequences that fit into the recipe's sequence length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from launcher.prepare.rendering.chats import render_chat
from launcher.prepare.rendering.rendered import Cut, Rendered, check_learnt
from launcher.prepare.rendering.texts import render_classified, render_text, split_text
from launcher.prepare.shapes.sample import Message, Sample
from launcher.prepare.unusable import Unusable
from recipes.recipe import Recipe

# A text of more characters than both has no place in a sequence, whatever its tokens are. To find
# its tokens all the same takes 280 bytes of memory and 2 µs for each.
_CHARACTERS = 2**20
_CHARACTERS_PER_TOKEN = 64


def render(tokenizer: Any, sample: Sample, recipe: Recipe) -> list[Rendered]:
    """The sequences of a sample, each of at most data.sequence_length tokens: one; of a preference
    two, the chosen one first; several where data.too_long says `split`.

    Whatever had to be cut stands in their `cuts`. Raises `Unusable` for a sample that does not fit
    or from which nothing would be learnt.
    """
    length, too_long = recipe.data.sequence_length, recipe.data.too_long
    if too_long == "set_aside":
        _check_characters(sample, length)
    if recipe.task == "sequence_classification":
        assert sample.text is not None
        return [render_classified(tokenizer, sample.text, sample.text_pair, length, too_long)]
    if sample.rejected is not None:
        sides = [_whole(tokenizer, side) for side in _sides(sample)]
        return [check_learnt(_cut(tokenizer, side, length, too_long)) for side in sides]
    whole = _whole(tokenizer, sample)
    if len(whole.input_ids) <= length:
        return [check_learnt(whole)]
    if too_long == "split" and sample.messages is not None:
        return _split_chat(tokenizer, sample, whole, length)
    if too_long == "split" and sample.prompt is None:
        assert sample.text is not None
        return split_text(tokenizer, sample.text, length)
    if too_long == "truncate_left" and sample.messages is not None:
        whole = _without_first_turns(tokenizer, sample, whole, length)
    return [check_learnt(_cut(tokenizer, whole, length, too_long))]


def _check_characters(sample: Sample, length: int) -> None:
    characters = len(sample.texts())
    if characters > max(_CHARACTERS, _CHARACTERS_PER_TOKEN * length):
        raise Unusable("too long", f"{characters:,} characters")


def _sides(sample: Sample) -> list[Sample]:
    """A preference as two samples."""
    chosen = replace(sample, rejected=None)
    if isinstance(sample.rejected, list):
        return [chosen, replace(chosen, messages=sample.rejected)]
    return [chosen, replace(chosen, text=sample.rejected)]


def _whole(tokenizer: Any, sample: Sample) -> Rendered:
    if sample.messages is None:
        assert sample.text is not None
        return render_text(tokenizer, sample.text, sample.prompt or "")
    return render_chat(tokenizer, sample.messages, tools=sample.tools, images=sample.images or ())


def _cut(tokenizer: Any, rendered: Rendered, length: int, too_long: str) -> Rendered:
    """At most `length` tokens of it. The token that begins a text stays."""
    tokens = len(rendered.input_ids)
    if tokens <= length:
        return rendered
    if rendered.images or too_long not in ("truncate", "truncate_left"):
        # Without all of their places images could not be put in.
        raise Unusable("too long", f"{tokens} tokens")
    if too_long == "truncate":
        return rendered.cut("cut at the end", 0, length)
    keep = 1 if rendered.input_ids[0] == tokenizer.bos_token_id else 0
    return rendered.cut("cut at the beginning", tokens - length + keep, tokens, keep)


def turns_of(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The system messages that a chat begins with, and its turns: each from what a person says to
    before they speak again."""
    first = next((n for n, m in enumerate(messages) if m["role"] != "system"), len(messages))
    turns: list[list[Message]] = []
    for before, message in zip([None, *messages[first:]], messages[first:], strict=False):
        speaks_again = message["role"] == "user" and (before is None or before["role"] != "user")
        if not turns or speaks_again:
            turns.append([])
        turns[-1].append(message)
    return list(messages[:first]), turns


def _renderer(tokenizer: Any, sample: Sample) -> tuple[int, Callable[[int, int], Rendered | None]]:
    """How many turns a chat has, and what makes a chat of some of them behind its system message;
    None where the template takes no such chat."""
    assert sample.messages is not None
    head, turns = turns_of(sample.messages)
    places = [0, *accumulate(sum(map(_images, turn)) for turn in turns)]

    def render_turns(begin: int, end: int) -> Rendered | None:
        messages = [*head, *(message for turn in turns[begin:end] for message in turn)]
        images = (sample.images or [])[places[begin] : places[end]]
        try:
            return render_chat(tokenizer, messages, tools=sample.tools, images=images)
        except Unusable:
            return None

    return len(turns), render_turns


def _images(message: Message) -> int:
    content = message["content"]
    return 0 if isinstance(content, str) else sum(part["type"] == "image" for part in content)


def _without_first_turns(tokenizer: Any, sample: Sample, whole: Rendered, length: int) -> Rendered:
    """The most of the last turns that fit, or the last one alone if it does not."""
    count, render_turns = _renderer(tokenizer, sample)
    rest = whole
    for begin in range(1, count):
        shorter = render_turns(begin, count)
        if shorter is None:
            continue
        lost = len(whole.input_ids) - len(shorter.input_ids)
        rest = replace(shorter, cuts=(Cut(how="first turns left out", tokens=lost),))
        if len(rest.input_ids) <= length:
            break
    return rest


def _split_chat(tokenizer: Any, sample: Sample, whole: Rendered, length: int) -> list[Rendered]:
    """Several chats of whole turns, as many in each as fit. A turn that does not fit by itself is
    left out, and said to be."""
    count, render_turns = _renderer(tokenizer, sample)
    parts: list[Rendered] = []
    left_out: list[Cut] = []
    begin = 0
    while begin < count:
        part, end = render_turns(begin, begin + 1), begin + 1
        if part is None or len(part.input_ids) > length:
            tokens = len(part.input_ids) if part is not None else 0
            left_out.append(Cut(how="turn left out", tokens=tokens))
            begin = end
            continue
        while end < count:
            longer = render_turns(begin, end + 1)
            if longer is None or len(longer.input_ids) > length:
                break
            part, end = longer, end + 1
        if part.supervised:
            parts.append(replace(part, cuts=(Cut(how="split at turns", tokens=0),)))
        else:
            left_out.append(Cut(how="turns without an answer left out", tokens=len(part.input_ids)))
        begin = end
    if not parts:
        raise Unusable("too long", f"{len(whole.input_ids)} tokens")
    parts[0] = replace(parts[0], cuts=(*parts[0].cuts, *left_out))
    return parts
