"""Steps that write a text in another way and drop no row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from recipes.data.steps import checks
from recipes.data.steps.step import CleaningStep
from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizeUnicode(CleaningStep):
    """One way of writing each character."""

    form: Literal["NFKC", "NFC", "width"] = "NFKC"
    """NFKC makes `，` a comma and `ﬁ` two letters, NFC joins accents, width leaves `，！` wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripControl(CleaningStep):
    """Take out characters that nobody sees, but for tab and line end, which all become `\\n`."""

    joiners: Literal["keep", "drop"] = "keep"
    """Zero-width joiners where emoji or a script such as Persian or Hindi needs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripHtml(CleaningStep):
    """Take out tags, scripts and comments; blocks end a line, entities become characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripUrls(CleaningStep):
    """Take out addresses of web pages, or mask them."""

    replacement: str = ""
    """What stands in their place, such as `<url>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripEmails(CleaningStep):
    """Take out e-mail addresses, or mask them."""

    replacement: str = ""
    """What stands in their place, such as `<email>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripPhones(CleaningStep):
    """Take out telephone numbers (Chinese, North American, or with `+`), or mask them."""

    replacement: str = ""
    """What stands in their place, such as `<phone>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollapsePunctuation(CleaningStep):
    """Shorten runs of the same mark, Chinese and Western alike."""

    longest: int = 3
    """Marks that stay of a run; 3 leaves `...` and `——` as they are."""

    def problems(self, place: str) -> Iterator[Problem]:
        yield from checks.at_least(f"{place}.longest", self.longest, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePunctuation(CleaningStep):
    """Take out punctuation, Chinese and Western alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollapseWhitespace(CleaningStep):
    """One space for any run of white space, none at both ends."""

    lines: Literal["join", "keep"] = "join"
    """With keep, lines stay lines, and of several empty ones one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimplifyChinese(CleaningStep):
    """Traditional characters become simplified ones, by OpenCC."""

    variant: Literal["t2s", "tw2s", "tw2sp", "hk2s"] = "t2s"
    """OpenCC's table: any, Taiwan's, Taiwan's with its words (`軟體` to `软件`), Hong Kong's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace(CleaningStep):
    """Put something else in place of what a regular expression matches."""

    pattern: str
    """A regular expression of Python's `re`."""

    replacement: str = ""
    """What stands in place of each match; `\\1` is the pattern's first group."""

    def problems(self, place: str) -> Iterator[Problem]:
        yield from checks.not_empty(f"{place}.pattern", self.pattern)
        yield from checks.pattern(place, self.pattern, self.replacement)
