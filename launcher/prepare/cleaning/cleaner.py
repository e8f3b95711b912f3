"""The steps of a recipe as one function from text to text, built once in a process."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from launcher.prepare.cleaning import (
    chinese,
    filters,
    language,
    lines,
    markup,
    masking,
    own,
    repetition,
    rewriting,
    tokens,
    words,
)
from launcher.prepare.unusable import Dropped
from recipes.data import CleaningStep, steps

Rewrite = Callable[[str], str]
Filter = Callable[[str], None]

REWRITES: Mapping[type[CleaningStep], Callable[[Any], Rewrite]] = {
    steps.NormalizeUnicode: rewriting.normalize_unicode,
    steps.SimplifyChinese: chinese.simplify_chinese,
    steps.StripControl: rewriting.strip_control,
    steps.StripHtml: markup.strip_html,
    steps.StripUrls: masking.strip_urls,
    steps.StripEmails: masking.strip_emails,
    steps.StripPhones: masking.strip_phones,
    steps.CollapsePunctuation: rewriting.collapse_punctuation,
    steps.CollapseWhitespace: rewriting.collapse_whitespace,
    steps.RemovePunctuation: rewriting.remove_punctuation,
    steps.Replace: rewriting.replace,
    steps.StopWords: words.stop_words,
    steps.Segment: words.segment,
    steps.Call: own.call,
}
"""From a step to the function that writes a text anew."""

FILTERS: Mapping[type[CleaningStep], Callable[[Any], Filter]] = {
    steps.Characters: filters.characters,
    steps.Language: language.language,
    steps.Symbols: filters.symbols,
    steps.Digits: filters.digits,
    steps.Repetition: repetition.repetition,
    steps.DropMatching: filters.drop_matching,
    steps.KeepMatching: filters.keep_matching,
}
"""From a step to the function that raises `Dropped` for a text whose row is to be dropped."""


def _keep_all(text: str) -> None:
    """The filter of a step that is none."""


@dataclass(frozen=True, slots=True)
class _Built:
    """A step made ready: either it writes a text anew, or it checks one."""

    name: str
    rewrite: Rewrite | None = None
    check: Filter = _keep_all


class Cleaner:
    """Cleans texts by the steps of a recipe, in their order.

    In `tokenizer_folder` lies what `leave_tokenizer` has left of the base's tokenizer, which the
    step tokens needs; `frequent_lines` is what boilerplate_lines needs, the sorted hashes that
    lines.find_frequent gives, as np.save leaves them. `partial` leaves out the steps whose need is
    not met; else that is a `ValueError`.

    Dictionaries, models and the user's functions are loaded here, so a fault in one of them is a
    `DataError` before the first row.
    """

    def __init__(
        self,
        recipe_steps: Sequence[CleaningStep],
        *,
        tokenizer_folder: Path | None = None,
        frequent_lines: Path | None = None,
        partial: bool = False,
    ) -> None:
        self._tokenizer_folder = tokenizer_folder
        self._frequent_lines = frequent_lines
        self._built: list[_Built] = []
        names: Counter[str] = Counter()
        for step in recipe_steps:
            names[step.name] += 1
            number = names[step.name]
            built = self._build(step, step.name if number == 1 else f"{step.name} {number}")
            if built is not None:
                self._built.append(built)
            elif not partial:
                raise ValueError(f"data.clean: {step.name} was not given what it needs")
        self.changed: Counter[str] = Counter()
        """How many texts each step has changed, by its name; the second of a name is `name 2`."""

    def _build(self, step: CleaningStep, name: str) -> _Built | None:
        kind = type(step)
        if isinstance(step, steps.Tokens):
            if self._tokenizer_folder is None:
                return None
            return _Built(name, check=tokens.tokens(step, self._tokenizer_folder))
        if isinstance(step, steps.BoilerplateLines):
            if self._frequent_lines is None:
                return None
            frequent = np.load(self._frequent_lines, mmap_mode="r")
            return _Built(name, rewrite=lines.boilerplate_lines(step, frequent))
        if kind in FILTERS:
            return _Built(name, check=FILTERS[kind](step))
        return _Built(name, rewrite=REWRITES[kind](step))

    def clean(self, texts: Sequence[str]) -> list[str]:
        """The texts of a row after all steps.

        What changes a text is done to each of them; what drops a row looks at all of them
        together, or a chat would go for its shortest answer. Raises `Dropped` where a step leaves
        the row out, another `Unusable` where one cannot be done.
        """
        found = list(texts)
        for step in self._built:
            if step.rewrite is None:
                step.check("\n".join(found))
                continue
            for place, before in enumerate(found):
                found[place] = step.rewrite(before)
                if found[place] != before:
                    self.changed[step.name] += 1
        return found

    def rewrite(self, texts: Sequence[str]) -> list[str]:
        """The texts after the steps that change one: a question is not dropped for its length.

        Raises `Unusable` only where a function of the user's fails.
        """
        found = list(texts)
        for step in self._built:
            if step.rewrite is None:
                continue
            for place, before in enumerate(found):
                with suppress(Dropped):
                    found[place] = step.rewrite(before)
        return found

    def take_counts(self) -> dict[str, int]:
        """How many texts each step has changed since this was asked last."""
        counts = dict(self.changed)
        self.changed.clear()
        return counts


@dataclass(frozen=True, slots=True)
class Rewriter:
    """Cleans as `cleaner` does and drops nothing, for what a model is asked."""

    cleaner: Cleaner

    def clean(self, texts: Sequence[str]) -> list[str]:
        """The texts after the steps that change one."""
        return self.cleaner.rewrite(texts)


def before_boilerplate(recipe_steps: Sequence[CleaningStep]) -> Sequence[CleaningStep]:
    """The steps before boilerplate_lines, after which its lines are counted."""
    kinds = [type(step) for step in recipe_steps]
    return recipe_steps[: kinds.index(steps.BoilerplateLines)]


def boilerplate_step(recipe_steps: Sequence[CleaningStep]) -> steps.BoilerplateLines | None:
    """The step that takes out boilerplate, if there is one."""
    return next((s for s in recipe_steps if isinstance(s, steps.BoilerplateLines)), None)


def cleaner_of(
    recipe_steps: Sequence[CleaningStep],
    *,
    tokenizer_folder: Path | None = None,
    frequent_lines: Path | None = None,
    partial: bool = False,
) -> Cleaner:
    """The cleaner of these steps in this process, built when it is asked for first."""
    plain = json.dumps([step.plain() for step in recipe_steps], sort_keys=True)
    key = (plain, tokenizer_folder, frequent_lines, partial)
    if key not in _CLEANERS:
        _CLEANERS[key] = Cleaner(
            recipe_steps,
            tokenizer_folder=tokenizer_folder,
            frequent_lines=frequent_lines,
            partial=partial,
        )
    return _CLEANERS[key]


_CLEANERS: dict[tuple[Any, ...], Cleaner] = {}


def clean(text: str, recipe_steps: Sequence[CleaningStep]) -> str:
    """The text after the steps that need nothing but the text. Raises `Unusable`."""
    return cleaner_of(recipe_steps, partial=True).clean([text])[0]
