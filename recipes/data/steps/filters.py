"""Steps that drop rows and leave the text of the others as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from recipes.data.steps import checks
from recipes.data.steps.languages import IDENTIFIED
from recipes.data.steps.step import CleaningStep
from recipes.problem import Problem, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Characters(CleaningStep):
    """Drop rows whose text is too short or too long at this point."""

    min: int = 1
    """Fewest characters."""

    max: int | None = None
    """Most characters."""

    def problems(self, place: str) -> Iterator[Problem]:
        yield from checks.bounds(place, self.min, self.max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens(CleaningStep):
    """Drop rows whose text is too short or too long for the base's tokenizer at this point."""

    min: int = 1
    """Fewest tokens, without those of a chat template."""

    max: int | None = None
    """Most tokens."""

    def problems(self, place: str) -> Iterator[Problem]:
        yield from checks.bounds(place, self.min, self.max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Language(CleaningStep):
    """Drop rows in other languages, by py3langid on the first 10,000 characters."""

    keep: list[str] = field(default_factory=lambda: ["zh", "en"])
    """Languages that stay (ISO 639-1); zh includes the dialects that are written as Chinese."""

    min_probability: float = 0.3
    """Drop below this probability that the text is in one of them."""

    min_characters: int = 20
    """Keep shorter texts: few letters tell no language."""

    def problems(self, place: str) -> Iterator[Problem]:
        yield from checks.not_empty(f"{place}.keep", self.keep)
        yield from checks.share(f"{place}.min_probability", self.min_probability)
        yield from checks.at_least(f"{place}.min_characters", self.min_characters, 0)
        for language in self.keep:
            if language not in IDENTIFIED:
                hint = did_you_mean(language, IDENTIFIED) or f"Known: {', '.join(IDENTIFIED)}"
                yield Problem(
                    path=f"{place}.keep", value=language, message="is no known language", hint=hint
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbols(CleaningStep):
    """Drop rows with too many characters that are neither letters, digits nor usual punctuation."""

    max: float = 0.3
    """Largest share of such characters among those that are no white space."""

    def problems(self, place: str) -> Iterator[Problem]:
        yield from checks.share(f"{place}.max", self.max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits(CleaningStep):
    """Drop rows that consist of digits for the most part."""

    max: float = 0.5
    """Largest share of digits among the characters that are no white space."""

    def problems(self, place: str) -> Iterator[Problem]:
        yield from checks.share(f"{place}.max", self.max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition(CleaningStep):
    """Drop rows that say the same again and again: Gopher's rules (arXiv:2112.11446, table A1)."""

    lines: float = 0.3
    """Largest share of lines that were there before in the text."""

    line_characters: float = 0.2
    """Largest share of characters in such lines."""

    top_ngrams: list[float] = field(default_factory=lambda: [0.20, 0.18, 0.16])
    """Largest share of characters in the most frequent sequence of 2, 3 and 4 words."""

    repeated_ngrams: list[float] = field(
        default_factory=lambda: [0.15, 0.14, 0.13, 0.12, 0.11, 0.10]
    )
    """Largest share of characters in sequences of 5 to 10 words that were there before."""

    min_words: int = 50
    """Keep texts of fewer words; a Chinese character counts as a word."""

    def problems(self, place: str) -> Iterator[Problem]:
        yield from checks.share(f"{place}.lines", self.lines)
        yield from checks.share(f"{place}.line_characters", self.line_characters)
        yield from checks.at_least(f"{place}.min_words", self.min_words, 0)
        for name, most in (("top_ngrams", 3), ("repeated_ngrams", 6)):
            shares = getattr(self, name)
            if len(shares) > most:
                yield Problem(
                    path=f"{place}.{name}", value=shares, message=f"are more than {most} shares"
                )
            for number, value in enumerate(shares):
                yield from checks.share(f"{place}.{name}[{number}]", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class DropMatching(CleaningStep):
    """Drop rows in whose text a regular expression is found."""

    pattern: str
    """A regular expression of Python's `re`."""

    def problems(self, place: str) -> Iterator[Problem]:
        yield from checks.not_empty(f"{place}.pattern", self.pattern)
        yield from checks.pattern(place, self.pattern)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepMatching(CleaningStep):
    """Drop rows in whose text a regular expression is not found."""

    pattern: str
    """A regular expression of Python's `re`."""

    def problems(self, place: str) -> Iterator[Problem]:
        yield from checks.not_empty(f"{place}.pattern", self.pattern)
        yield from checks.pattern(place, self.pattern)
