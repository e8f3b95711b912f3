"""Plain texts as token ids, and texts to classify."""

from __future__ import annotations

import re

from adapters.light_tokenizer import LightTokenizer
from launcher.prepare.rendering.rendered import Cut, Offsets, Rendered, labelled
from launcher.prepare.unusable import Unusable
from trainer.shards import IGNORED

# Where a text may be cut: after a line, or after what ends a sentence. A full stop does only before
# white space, or 3.14 would be two sentences.
_LINE_END = re.compile(r"\n\s*$")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)]*\s+$|[。！？…][”’）」]*\s*$")
_BEFORE_SPACE = re.compile(r"[.!?][\"'”’)]*$")
_LOOKED_AT = 8


def render_text(tokenizer: LightTokenizer, text: str, prompt: str = "") -> Rendered:
    """A text with its end token, the loss on every token but the first; of what follows a prompt,
    on that alone. Raises `Unusable` when it is no token."""
    found = tokenizer.backend.encode(prompt + text, special=True)
    ids = found.ids
    if not prompt:
        return text_of(tokenizer, ids)
    _check_some(ids)
    end = tokenizer.eos_token_id
    labels = labelled(ids, found.offsets, [(len(prompt), len(prompt) + len(text))])
    # A token after the text, which the tokenizer puts there, is predicted as well.
    labels = [*labels[:-1], ids[-1] if ids[-1] == end else labels[-1]]
    return _ended(ids, labels, end)


def text_of(tokenizer: LightTokenizer, ids: list[int]) -> Rendered:
    """The same of a text without a prompt, from its token ids."""
    _check_some(ids)
    return _ended(ids, [IGNORED, *ids[1:]], tokenizer.eos_token_id)


def _check_some(ids: list[int]) -> None:
    if not ids:
        raise Unusable("empty", "the tokenizer makes no token of it")


def _ended(ids: list[int], labels: list[int], end: int | None) -> Rendered:
    if end is not None and ids[-1] != end:
        ids.append(end)
        labels.append(end)
    return Rendered(input_ids=ids, labels=labels)


def split_text(tokenizer: LightTokenizer, text: str, length: int) -> list[Rendered]:
    """A text in pieces of up to `length` tokens that together are the text: cut after lines and
    sentences where one ends in the second half of a piece. What the tokenizer puts before a text
    stands before each piece; only the last has the end token."""
    found = tokenizer.backend.encode(text, special=True)
    ids, offsets = found.ids, found.offsets
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
    tokenizer: LightTokenizer, text: str, text_pair: str | None, length: int, too_long: str
) -> Rendered:
    """A text to classify, or a pair of texts, with the tokenizer's special tokens; no labels.
    Raises `Unusable`."""
    pair = tokenizer.backend.pair
    ids, types = pair(text, text_pair)
    tokens = len(ids)
    cuts: tuple[Cut, ...] = ()
    if tokens > length:
        if too_long not in ("truncate", "truncate_left"):
            raise Unusable("too long", f"{tokens} tokens")
        if too_long == "truncate_left":
            ids, types = pair(text, text_pair, length, "left")
            how = "cut at the beginning"
        else:
            ids, types = pair(text, text_pair, length, "right")
            how = "cut at the end"
        cuts = (Cut(how=how, tokens=tokens - len(ids)),)
    return Rendered(
        input_ids=ids, labels=[], token_types=types if text_pair is not None else [], cuts=cuts
    )
