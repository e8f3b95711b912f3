"""Filters: a function of a text that raises `Dropped` when its row is to be dropped."""

from __future__ import annotations

import re
from collections.abc import Callable

from launcher.prepare.cleaning.unicode_classes import of_categories
from launcher.prepare.unusable import Dropped
from recipes.data import steps

Filter = Callable[[str], None]


def characters(step: steps.Characters) -> Filter:
    return lambda text: within("characters", len(text), step.min, step.max)


def within(what: str, count: int, least: int, most: int | None) -> None:
    """Raises `Dropped` for a count outside its bounds."""
    if count < least:
        raise Dropped(f"{what}: too few", str(count))
    if most is not None and count > most:
        raise Dropped(f"{what}: too many", str(count))


# What prose has besides letters and digits, in Chinese and in English.
_COMMON = re.escape(".,;:!?'\"()-/%&@…–—‘’“”·。，、；：？！（）《》〈〉「」『』【】〔〕～")


def symbols(step: steps.Symbols) -> Filter:
    others = re.compile(rf"(?:(?![_])[\w\s{_COMMON}{of_categories('M')}])+")

    def check(text: str) -> None:
        seen = _characters_seen(text)
        share = len("".join(others.split(text))) / seen if seen else 0.0
        if share > step.max:
            raise Dropped("symbols: too many", f"{share:.2f} of {seen} characters")

    return check


_DIGITS = re.compile(r"\d+")


def digits(step: steps.Digits) -> Filter:
    def check(text: str) -> None:
        seen = _characters_seen(text)
        share = sum(map(len, _DIGITS.findall(text))) / seen if seen else 0.0
        if share > step.max:
            raise Dropped("digits: too many", f"{share:.2f} of {seen} characters")

    return check


def _characters_seen(text: str) -> int:
    return sum(map(len, text.split()))


def drop_matching(step: steps.DropMatching) -> Filter:
    pattern = re.compile(step.pattern)

    def check(text: str) -> None:
        if found := pattern.search(text):
            raise Dropped(f"drop_matching: {step.pattern}", found[0][:100])

    return check


def keep_matching(step: steps.KeepMatching) -> Filter:
    pattern = re.compile(step.pattern)

    def check(text: str) -> None:
        if not pattern.search(text):
            raise Dropped(f"keep_matching: {step.pattern}")

    return check
