"""Steps that look at words, and at lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from recipes.data.steps import checks
from recipes.data.steps.languages import STOP_WORDS
from recipes.data.steps.step import CleaningStep
from recipes.problem import Problem, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class BoilerplateLines(CleaningStep):
    """Take out lines that stand in many texts of the input, such as menus and footers."""

    max_texts: int = 10
    """A line in more texts than this is taken out."""

    min_characters: int = 8
    """Shorter lines always stay."""

    def problems(self, place: str) -> Iterator[Problem]:
        yield from checks.at_least(f"{place}.max_texts", self.max_texts, 1)
        yield from checks.at_least(f"{place}.min_characters", self.min_characters, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWords(CleaningStep):
    """Take out words of a list, whatever their case; Chinese words are found by jieba."""

    languages: list[str] = field(default_factory=list)
    """Lists of the package stopwordsiso (ISO 639-1), such as `[zh, en]`."""

    file: str | None = None
    """File with more words, one a line (UTF-8)."""

    words: Literal["jieba", "spaces"] = "jieba"
    """With spaces, words are what stands between spaces, as after the step segment."""

    paths: ClassVar[tuple[str, ...]] = ("file",)

    def problems(self, place: str) -> Iterator[Problem]:
        if not self.languages and self.file is None:
            yield Problem(
                path=place, message="names no words", hint="Give languages, file, or both"
            )
        for language in self.languages:
            if language not in STOP_WORDS:
                hint = did_you_mean(language, STOP_WORDS) or f"Known: {', '.join(STOP_WORDS)}"
                yield Problem(
                    path=f"{place}.languages", value=language, message="has no list", hint=hint
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment(CleaningStep):
    """Put spaces between Chinese words with jieba; tokenizers of language models need none."""

    mode: Literal["exact", "full", "search"] = "exact"
    """exact cuts once; full gives every word there is; search also gives the short ones in long."""

    dictionary: str | None = None
    """File of words to know besides jieba's: `word [frequency [tag]]` in each line (UTF-8)."""

    hmm: bool = True
    """Guess words that are in no dictionary by a hidden Markov model; full does not."""

    punctuation: Literal["keep", "drop"] = "keep"
    """Whether punctuation is among the words."""

    separator: str = " "
    """What stands between two words of a line."""

    paths: ClassVar[tuple[str, ...]] = ("dictionary",)

    def problems(self, place: str) -> Iterator[Problem]:
        if not self.separator:
            yield Problem(path=f"{place}.separator", value="", message="separates nothing")
