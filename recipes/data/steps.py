"""The steps of data.clean: one class for each, its fields the step's options.

In a recipe a step is its name alone, or a mapping of its name to its options:
`- characters: {min: 12, max: 120}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from recipes.problem import Problem, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class CleaningStep:
    """One step; each text of a row goes through all of them in the recipe's order."""

    paths: ClassVar[tuple[str, ...]] = ()
    """Options that hold paths."""

    @classmethod
    def kind_of(cls, value: Any, place: str, problems: list[Problem]) -> type[CleaningStep] | None:
        """The class of a step as it stands in a recipe; None after a problem."""
        if isinstance(value, Mapping) and len(value) == 1:
            value = next(iter(value))
        if not isinstance(value, str):
            problems.append(
                Problem(
                    path=place,
                    value=value,
                    message="is no step",
                    allowed="the name of a step, or one name with its options",
                )
            )
            return None
        if value not in STEPS:
            hint = did_you_mean(value, STEPS) or f"Known: {', '.join(STEPS)}"
            problems.append(Problem(path=place, value=value, message="is no step", hint=hint))
            return None
        return STEPS[value]

    @staticmethod
    def options_of(value: Any) -> Any:
        """The options of a step as it stands in a recipe, a mapping if all is well."""
        return {} if isinstance(value, str) else next(iter(value.values())) or {}

    @property
    def name(self) -> str:
        """What the step is called in a recipe and in counts."""
        return next(name for name, kind in STEPS.items() if kind is type(self))

    def plain(self) -> Any:
        """The step as it stands in a recipe, with the options that are not the default."""
        options = {
            leaf.name: getattr(self, leaf.name)
            for leaf in fields(self)
            if getattr(self, leaf.name) != leaf.default
        }
        return {self.name: options} if options else self.name

    def problems(self, place: str) -> Iterator[Problem]:
        """What is wrong with the options."""
        yield from ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizeUnicode(CleaningStep):
    """One way of writing each character."""

    form: Literal["NFKC", "NFC"] = "NFKC"
    """NFKC also makes full-width letters and digits plain ones; NFC only composes accents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripControl(CleaningStep):
    """Take out control and format characters, but for tab and line end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripHtml(CleaningStep):
    """Take out tags, and write entities as characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripUrls(CleaningStep):
    """Take out addresses of web pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePunctuation(CleaningStep):
    """Take out punctuation, Chinese and Western alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollapseWhitespace(CleaningStep):
    """One space for any run of white space, none at both ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Characters(CleaningStep):
    """Drop rows whose text is too short or too long at this point."""

    min: int = 1
    """Fewest characters."""

    max: int | None = None
    """Most characters."""

    def problems(self, place: str) -> Iterator[Problem]:
        if self.max is not None and self.max < self.min:
            yield Problem(path=f"{place}.max", value=self.max, message=f"is below min = {self.min}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment(CleaningStep):
    """Put spaces between Chinese words with jieba; tokenizers of language models need none."""


STEPS: Mapping[str, type[CleaningStep]] = {
    "normalize_unicode": NormalizeUnicode,
    "strip_control": StripControl,
    "strip_html": StripHtml,
    "strip_urls": StripUrls,
    "remove_punctuation": RemovePunctuation,
    "collapse_whitespace": CollapseWhitespace,
    "characters": Characters,
    "segment": Segment,
}
"""Every step by its name, in the order of the documentation."""
