"""Plain texts as token ids, and texts to classify."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from launcher.prepare.rendering.rendered import Cut, Offsets, Rendered, labelled, tokenize
from launcher.prepare.unusable import Unusable
from trainer.shards import IGNORED

# Where a text may be cut: after a line, or after what ends a sentence. A full stop does only before
# white space, or 3.14 would be two sentences.
_LINE_END = re.compile(r"\n\s*$")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)]*\s+$|[。！？…][”’）」]*\s*$")
_BEFORE_SPACE = re.compile(r"[.!?][\"'”’)]*$")
_LOOKED_AT = 8


def render_text(tokenizer: Any, text: str, prompt: str = "") -> Rendered:
    """A text with its end token, the loss on every token but the first; of what follows a prompt,
    on that alone. Raises `Unusable` when it is no token."""
    ids, offsets = tokenize(tokenizer, prompt + text, special=True)
    if not ids:
        raise Unusable("empty", "the tokenizer makes no token of it")
    if prompt:
        labels = labelled(ids, offsets, [(len(prompt), len(prompt) + len(text))])
        # A token after the text, which the tokenizer puts there, is predicted as well.
        labels = [*labels[:-1], ids[-1] if ids[-1] == tokenizer.eos_token_id else labels[-1]]
    else:
        labels = [IGNORED, *ids[1:]]
    if tokenizer.eos_token_id is not None and ids[-1] != tokenizer.eos_token_id:
        ids.append(tokenizer.eos_token_id)
        labels.append(tokenizer.eos_token_id)
    return Rendered(input_ids=ids, labels=labels)


def split_text(tokenizer: Any, text: str, length: int) -> list[Rendered]:
    """A text in pieces of up to `length` tokens that together are the text: cut after lines and
    sentences where one ends in the second half of a piece. What the tokenizer puts before a text
    stands before each piece; only the last has the end token."""
    ids, offsets = tokenize(tokenizer, text, special=True)
    first = next((n for n, (begin, end) in enumerate(offsets) if end > begin), 0)
    last = next((n for n in range(len(ids), 0, -1) if offsets[n - 1][1] > offsets[n - 1][0]), 0)
    before, after = ids[:first], ids[last:]
    if not after and tokenizer.eos_token_id is not None:
        after = [tokenizer.eos_token_id]
    room = length - len(before)
    if room - len(after) < 1:
        raise Unusable("too long", f"{len(ids)} tokens")
    pieces: list[list[int]] = []
    begin = first
    while last - begin + len(after) > room:
        end = _cut_before(text, offsets, begin, min(begin + room, last - 1))
        pieces.append([*before, *ids[begin:end]])
        begin = end
    pieces.append([*before, *ids[begin:last], *after])
    cut = (Cut(how="split into pieces", tokens=0),)
    return [
        Rendered(input_ids=piece, labels=[IGNORED, *piece[1:]], cuts=cut)
        for piece in pieces
        if len(piece) > 1
    ]


def _cut_before(text: str, offsets: Offsets, begin: int, end: int) -> int:
    """The number of the token that the next piece begins with, at most `end`."""
    # Several tokens can be parts of one character: not between those.
    whole = [n for n in range(end, begin, -1) if offsets[n][0] >= offsets[n - 1][1]]
    for number in whole:
        if number <= begin + (end - begin) // 2:
            break
        place = offsets[number][0]
        said = text[max(0, place - _LOOKED_AT) : place]
        stops = _LINE_END.search(said) or _SENTENCE_END.search(said)
        if stops or (_BEFORE_SPACE.search(said) and text[place : place + 1].isspace()):
            return number
    return next(iter(whole), end)


def render_classified(
    tokenizer: Any, text: str, text_pair: str | None, length: int, too_long: str
) -> Rendered:
    """A text to classify, or a pair of texts, with the tokenizer's special tokens; no labels.
    Raises `Unusable`."""
    found = tokenizer(text, text_pair, verbose=False)
    tokens = len(found["input_ids"])
    cuts: tuple[Cut, ...] = ()
    if tokens > length:
        if too_long not in ("truncate", "truncate_left"):
            raise Unusable("too long", f"{tokens} tokens")
        side = "left" if too_long == "truncate_left" else "right"
        # The tokenizer's own truncation keeps its special tokens, and cuts the longer of two.
        with _cutting(tokenizer, side):
            found = tokenizer(text, text_pair, truncation=True, max_length=length)
        how = "cut at the beginning" if side == "left" else "cut at the end"
        cuts = (Cut(how=how, tokens=tokens - len(found["input_ids"])),)
    types = found.get("token_type_ids") or [] if text_pair is not None else []
    return Rendered(
        input_ids=list(found["input_ids"]), labels=[], token_types=list(types), cuts=cuts
    )


@contextmanager
def _cutting(tokenizer: Any, side: str) -> Iterator[None]:
    before = tokenizer.truncation_side
    tokenizer.truncation_side = side
    try:
        yield
    finally:
        tokenizer.truncation_side = before
