"""From a sample to sequences that fit into the recipe's sequence length."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

from adapters.light_tokenizer import LightTokenizer
from launcher.prepare.rendering.chats import render_chat, token_ids
from launcher.prepare.rendering.rendered import Cut, Rendered, check_learnt
from launcher.prepare.rendering.texts import render_classified, render_text, split_text, text_of
from launcher.prepare.shapes.sample import Message, Sample
from launcher.prepare.unusable import Unusable
from recipes.recipe import Recipe

# A text of more characters than both has no place in a sequence, whatever its tokens are. To find
# its tokens all the same takes 280 bytes of memory and 2 µs for each.
_CHARACTERS = 2**20
_CHARACTERS_PER_TOKEN = 64
# Characters that are tokenised at once: some 20 MB.
_TOGETHER = 2**16


def ids_of_texts(tokenizer: LightTokenizer, samples: Sequence[Sample]) -> list[list[int] | None]:
    """The token ids of the samples that are one text of usual length, found many at once, which
    takes half the time; None for the others."""
    found: list[list[int] | None] = [None] * len(samples)
    together: list[int] = []
    characters = 0

    def encode() -> None:
        nonlocal characters
        texts = [samples[place].text or "" for place in together]
        ids = tokenizer.backend.ids_of(texts, special=True)
        for place, of_text in zip(together, ids, strict=True):
            found[place] = of_text
        together.clear()
        characters = 0

    for place, sample in enumerate(samples):
        if sample.is_one_text and len(sample.text or "") <= _TOGETHER:
            together.append(place)
            characters += len(sample.text or "")
        if characters >= _TOGETHER:
            encode()
    encode()
    return found


def render(
    tokenizer: LightTokenizer, sample: Sample, recipe: Recipe, ids: list[int] | None = None
) -> list[Rendered]:
    """The sequences of a sample, each of at most data.sequence_length tokens: one; of a preference
    two, the chosen one first; several where data.too_long says `split`.

    `ids` are those of `ids_of_texts`, where they are known. Whatever had to be cut stands in the
    `cuts` of a sequence. Raises `Unusable` for a sample that does not fit or from which nothing
    would be learnt.
    """
    length, too_long = recipe.data.sequence_length, recipe.data.too_long
    if too_long == "set_aside":
        _check_characters(sample, length)
    if recipe.task == "sequence_classification":
        assert sample.text is not None
        if ids is not None and len(ids) <= length:
            return [Rendered(input_ids=ids, labels=[])]
        return [render_classified(tokenizer, sample.text, sample.text_pair, length, too_long)]
    if sample.rejected is not None:
        longest = None if too_long == "truncate_left" else length
        sides = [_whole(tokenizer, side, longest) for side in _sides(sample)]
        return [check_learnt(_cut(tokenizer, side, length, too_long)) for side in sides]
    whole = text_of(tokenizer, ids) if ids is not None else _whole(tokenizer, sample, length)
    tokens = len(whole.input_ids)
    if tokens <= length:
        return [check_learnt(whole)]
    if too_long == "split" and sample.messages is not None:
        return _split_chat(tokenizer, sample, tokens, length)
    if too_long == "split" and sample.prompt is None:
        assert sample.text is not None
        return split_text(tokenizer, sample.text, length)
    if too_long == "truncate_left" and sample.messages is not None:
        whole = _without_first_turns(tokenizer, sample, tokens, length)
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


def _whole(tokenizer: LightTokenizer, sample: Sample, longest: int | None = None) -> Rendered:
    """A sample as it is, however long. See `render_chat` for `longest`."""
    messages, tools, images = sample.messages, sample.tools, sample.images or ()
    if messages is None:
        assert sample.text is not None
        return render_text(tokenizer, sample.text, sample.prompt or "")
    return render_chat(tokenizer, messages, tools=tools, images=images, longest=longest)


def _cut(tokenizer: LightTokenizer, rendered: Rendered, length: int, too_long: str) -> Rendered:
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


class _Turns:
    """The turns of a chat; any that follow one another are a chat behind its system message."""

    def __init__(self, tokenizer: LightTokenizer, sample: Sample) -> None:
        assert sample.messages is not None
        self._tokenizer, self._sample = tokenizer, sample
        self._head, self._turns = turns_of(sample.messages)
        self._images = [0, *accumulate(sum(map(_images, turn)) for turn in self._turns)]

    def __len__(self) -> int:
        return len(self._turns)

    def _messages(self, begin: int, end: int) -> list[Message]:
        return [*self._head, *(message for turn in self._turns[begin:end] for message in turn)]

    def render(self, begin: int, end: int) -> Rendered | None:
        """A chat of some turns; None where the template takes no such chat."""
        images = (self._sample.images or [])[self._images[begin] : self._images[end]]
        messages, tools = self._messages(begin, end), self._sample.tools
        try:
            return render_chat(self._tokenizer, messages, tools=tools, images=images)
        except Unusable:
            return None

    def may_fit(self, length: int, begin: int, count: int) -> bool:
        """Whether a chat of so many turns has at most `length` tokens, but for an end token that
        may come behind it. What is learnt, which takes far longer to find, is not asked for."""
        end = begin + count
        messages, tools = self._messages(begin, end), self._sample.tools
        has_images = self._images[end] > self._images[begin]
        try:
            ids = token_ids(self._tokenizer, messages, tools=tools, has_images=has_images)
        except Unusable:
            return False
        return len(ids) <= length


def _longest(most: int, fits: Callable[[int], bool]) -> int:
    """The number from 1 to `most` up to which all fit; 1 where none does. It is looked for from 1
    on, as what is much too long takes much longer to look at."""
    found, step = 1, 1
    while found < most and fits(min(found + step, most)):
        found, step = min(found + step, most), 2 * step
    between = range(found + 1, min(found + step, most))
    return found + bisect_left(between, True, key=lambda number: not fits(number))


def _images(message: Message) -> int:
    content = message["content"]
    return 0 if isinstance(content, str) else sum(part["type"] == "image" for part in content)


def _without_first_turns(
    tokenizer: LightTokenizer, sample: Sample, tokens: int, length: int
) -> Rendered:
    """The most of the last turns that fit, or the last one alone if it does not, of a chat of so
    many tokens."""
    turns = _Turns(tokenizer, sample)
    count = len(turns)
    kept = _longest(count - 1, lambda kept: turns.may_fit(length, count - kept, kept))
    rest = turns.render(count - kept, count)
    while kept > 1 and not _fits(rest, length):
        kept -= 1
        rest = turns.render(count - kept, count)
    if rest is None or kept == count:
        return _whole(tokenizer, sample)
    cut = Cut(how="first turns left out", tokens=tokens - len(rest.input_ids))
    return replace(rest, cuts=(cut,))


def _split_chat(
    tokenizer: LightTokenizer, sample: Sample, tokens: int, length: int
) -> list[Rendered]:
    """Several chats of whole turns, as many in each as fit. A turn that does not fit by itself is
    left out, and said to be."""
    turns = _Turns(tokenizer, sample)
    parts: list[Rendered] = []
    left_out: list[Cut] = []
    begin = 0
    while begin < len(turns):
        fits = partial(turns.may_fit, length, begin)
        count = _longest(len(turns) - begin, fits)
        part = turns.render(begin, begin + count)
        while count > 1 and not _fits(part, length):
            count -= 1
            part = turns.render(begin, begin + count)
        begin += count
        of_part = len(part.input_ids) if part is not None else 0
        if part is None or of_part > length:
            left_out.append(Cut(how="turn left out", tokens=of_part))
        elif part.supervised:
            parts.append(replace(part, cuts=(Cut(how="split at turns", tokens=0),)))
        else:
            left_out.append(Cut(how="turns without an answer left out", tokens=of_part))
    if not parts:
        raise Unusable("too long", f"{tokens} tokens")
    parts[0] = replace(parts[0], cuts=(*parts[0].cuts, *left_out))
    return parts


def _fits(part: Rendered | None, length: int) -> bool:
    return part is not None and len(part.input_ids) <= length
