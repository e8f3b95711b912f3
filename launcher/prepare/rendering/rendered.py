"""What a model is given of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from launcher.prepare.unusable import Unusable
from trainer.shards import IGNORED

Span = tuple[int, int]
"""Characters of a text, from the first to before the second."""

Offsets = Sequence[Span]
"""Of each token, the characters of the text that it stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Something that was done so that a sample fits; `tokens` are what is lost by it."""

    how: str
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Token ids and the label of each token, `IGNORED` where nothing is learnt; the same length.

    The first token is never supervised: nothing comes before it that could predict it. A text to
    classify has no labels.
    """

    input_ids: list[int]
    labels: list[int]
    token_types: list[int] = field(default_factory=list)
    """Of a pair of texts, which of the two each token is of; empty where the tokenizer has none."""
    images: list[str] = field(default_factory=list)
    """Where the images of a chat lie, in its order."""
    cuts: tuple[Cut, ...] = ()

    @property
    def supervised(self) -> int:
        return len(self.labels) - self.labels.count(IGNORED)

    def cut(self, how: str, begin: int, end: int, keep: int = 0) -> Rendered:
        """Tokens `begin` to before `end` of it, after the first `keep` ones."""
        labels = [*self.labels[:keep], *self.labels[begin:end]]
        lost = len(self.input_ids) - keep - (end - begin)
        return replace(
            self,
            input_ids=[*self.input_ids[:keep], *self.input_ids[begin:end]],
            labels=[IGNORED, *labels[1:]],
            cuts=(*self.cuts, Cut(how=how, tokens=lost)),
        )


def labelled(ids: Sequence[int], offsets: Offsets, spans: Sequence[Span]) -> list[int]:
    """The label of each token: itself where it stands for a character of a span, else `IGNORED`.

    `spans` are in order and do not overlap. A token that begins before a span and ends within it is
    part of what has to be predicted.
    """
    labels = [IGNORED] * len(ids)
    number = 0
    for index, (begin, end) in enumerate(offsets):
        while number < len(spans) and spans[number][1] <= begin:
            number += 1
        if number == len(spans):
            break
        if (end > spans[number][0] or begin == spans[number][0]) and begin < spans[number][1]:
            labels[index] = ids[index]
    if labels:
        labels[0] = IGNORED
    return labels


def check_learnt(rendered: Rendered) -> Rendered:
    """The same. Raises `Unusable` when nothing would be learnt from it."""
    # The last token of a text is learnt, and to see that is quicker than to count them all.
    if rendered.labels[-1:] in ([], [IGNORED]) and rendered.supervised == 0:
        raise Unusable("no supervised token", f"{len(rendered.input_ids)} tokens")
    return rendered
