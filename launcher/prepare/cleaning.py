"""Cleaning a text, step by step, and segmenting Chinese."""

from __future__ import annotations

import html
import logging
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from launcher.prepare.unusable import Dropped
from recipes.data import CleaningStep
from recipes.data.steps import Characters

_TAG = re.compile(r"<[^<>]*>")
_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"'，。！？；：、）】》]+", re.IGNORECASE)
_SPACE = re.compile(r"\s+")


def clean(text: str, steps: Sequence[CleaningStep]) -> str:
    """The text after the recipe's cleaning steps, in their order. Raises `Unusable`."""
    for step in steps:
        if isinstance(step, Characters):
            _check_length(text, step)
        else:
            text = STEPS[step.name](text)
    return text


def _check_length(text: str, bounds: Characters) -> None:
    if len(text) < bounds.min:
        raise Dropped("too few characters", str(len(text)))
    if bounds.max is not None and len(text) > bounds.max:
        raise Dropped("too many characters", str(len(text)))


def segment_words(text: str) -> str:
    """jieba's words joined with single spaces: nothing is added, nothing but spaces is lost."""
    return " ".join(word for word in _jieba().lcut(text) if not word.isspace())


@cache
def _jieba() -> Any:
    import jieba

    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
    return jieba


def _normalize_unicode(text: str) -> str:
    """NFKC: full-width letters and digits become plain ones, and so do compatibility forms."""
    return unicodedata.normalize("NFKC", text)


def _strip_html(text: str) -> str:
    return html.unescape(_TAG.sub("", text))


def _strip_urls(text: str) -> str:
    return _URL.sub("", text)


def _strip_control(text: str) -> str:
    """Without control and format characters, but for tab and line end."""
    return "".join(c for c in text if c in "\t\n" or unicodedata.category(c) not in ("Cc", "Cf"))


def _remove_punctuation(text: str) -> str:
    """Without characters of Unicode's categories P*, Chinese and Western alike."""
    return "".join(c for c in text if not unicodedata.category(c).startswith("P"))


def _collapse_whitespace(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


STEPS: Mapping[str, Callable[[str], str]] = {
    "normalize_unicode": _normalize_unicode,
    "strip_html": _strip_html,
    "strip_urls": _strip_urls,
    "strip_control": _strip_control,
    "remove_punctuation": _remove_punctuation,
    "collapse_whitespace": _collapse_whitespace,
    "segment": segment_words,
}
