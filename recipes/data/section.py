"""The rows to train on, and how they become sequences of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from recipes.data.prompts import variables
from recipes.data.shapes import CHATS, COLUMNS, PROMPTED, Shape
from recipes.data.source import Source
from recipes.data.steps import BoilerplateLines, CleaningStep
from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    train: list[Source]
    """Rows to train on, in this order: paths, or sources with a name, a weight, a limit."""

    held_out: list[Source] = field(default_factory=list)
    """Rows kept for evaluation, in the same way."""

    held_out_fraction: float = 0.0
    """Share of the training rows kept for evaluation, chosen by the hash of their text."""

    held_out_column: str | None = None
    """Column that says whether a training row is kept for evaluation."""

    held_out_values: list[str] = field(default_factory=lambda: ["held_out", "validation", "test"])
    """Values of held_out_column that keep a row for evaluation."""

    mix: Literal["repeat", "cut"] = "repeat"
    """How weights are met: `repeat` samples of small sources, or `cut` large ones; exact counts."""

    format: Shape = "auto"
    """Shape of the rows; `auto` looks at their columns."""

    columns: dict[str, str] = field(default_factory=dict)
    """Names of the rows' columns by the names shoal knows, such as `{text: review}`."""

    labels: list[str] = field(default_factory=list)
    """Labels of a classification in the order of their ids; empty takes the rows' own, sorted."""

    system: str | None = None
    """System message for chats that have none."""

    prompt: list[str] = field(default_factory=list)
    """What the user says, with `{column}` for a row's values; of several one is taken by hash."""

    answer: str | None = None
    """What the model answers, in the same way; without it the row's completion, output or label."""

    chat_template: str | None = None
    """File with a chat template (Jinja) to use instead of the tokenizer's own; saved with it."""

    clean: list[CleaningStep] = field(default_factory=list)
    """Cleaning of every text, step by step in this order."""

    deduplicate: Literal["none", "exact", "near"] = "exact"
    """Keep the first of rows that are equal after cleaning, or nearly so; evaluation goes first."""

    near_similarity: float = 0.8
    """Share of word n-grams in common (Jaccard) from which two texts count as near."""

    near_words: int = 3
    """Words in an n-gram; jieba's for Chinese."""

    near_permutations: int = 128
    """Hash functions of MinHash; more find the similarity more exactly and take longer."""

    sequence_length: int = 1024
    """Longest sequence the model is given (tokens); packed sequences are filled up to it."""

    too_long: Literal["set_aside", "truncate", "truncate_left", "split"] = "set_aside"
    """A sample above sequence_length: set aside, cut at its end or beginning, or split at turns."""

    packing: bool = False
    """Put several samples into one sequence, attention kept inside each; not for classification."""

    group_by_length: bool = True
    """Without packing: batches of samples of similar length, in random order."""

    max_failed: float = 0.1
    """Share of rows that may be unreadable or no sample before preparing stops with the reasons."""

    unit_mb: int | None = None
    """MiB that one preparing task reads; null: 8, less of small data, a 20,000th of large data."""

    def problems(self) -> Iterator[Problem]:
        if not self.train:
            yield Problem(path="data.train", value=[], message="names no file")
        for name in ("train", "held_out", "clean"):
            for number, item in enumerate(getattr(self, name)):
                yield from item.problems(f"data.{name}[{number}]")
        yield from self._counted_twice()
        yield from self._shape_problems()
        yield from self._held_out_problems()
        yield from self._share_problems()
        yield from self._size_problems()
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if twice:
            yield Problem(path="data.labels", value=twice, message="are named more than once")

    def _counted_twice(self) -> Iterator[Problem]:
        found = [n for n, step in enumerate(self.clean) if isinstance(step, BoilerplateLines)]
        for number in found[1:]:
            yield Problem(
                path=f"data.clean[{number}]",
                value="boilerplate_lines",
                message=f"is there already, as data.clean[{found[0]}]",
                hint="Lines are counted once over all rows",
            )

    def _shape_problems(self) -> Iterator[Problem]:
        templates = {f"data.prompt[{number}]": text for number, text in enumerate(self.prompt)}
        if self.answer is not None:
            templates["data.answer"] = self.answer
        for path, text in templates.items():
            try:
                named = variables(text)
            except ValueError as error:
                yield Problem(path=path, value=text, message=f"cannot be filled in: {error}")
                continue
            if not named:
                message = "names no column, so it is the same for every row"
                yield Problem(path=path, value=text, message=message, hint="Write {column} in it")
        if self.answer is not None and not self.prompt:
            yield Problem(
                path="data.answer",
                value=self.answer,
                message="answers nothing",
                hint="Write what is asked into data.prompt",
            )
        yield from self._column_problems()
        for path, shape in self.shapes():
            if self.prompt and shape in (*CHATS, "preference"):
                yield Problem(
                    path="data.prompt",
                    value=self.prompt,
                    message=f"{path} = {shape}: its rows say themselves what is asked",
                    hint="Leave one of the two out",
                )

    def _column_problems(self) -> Iterator[Problem]:
        """A name that nothing looks for would leave its column unread without a word."""
        known = [*COLUMNS]
        if self.prompt:
            known += PROMPTED
            for text in (*self.prompt, self.answer or ""):
                with suppress(ValueError):  # told as a problem of its own
                    known += variables(text)
        named = {"data.columns": self.columns}
        for key in ("train", "held_out"):
            for number, source in enumerate(getattr(self, key)):
                named[f"data.{key}[{number}].columns"] = source.columns
        for path, columns in named.items():
            for name in columns:
                if name not in known:
                    yield Problem(
                        path=f"{path}.{name}",
                        value=columns[name],
                        message="is no name that shoal knows a column by",
                        allowed=", ".join(known),
                    )

    def shapes(self) -> Iterator[tuple[str, Shape]]:
        """What the recipe says of the rows' shape, with where it says so."""
        yield "data.format", self.format
        for key in ("train", "held_out"):
            for number, source in enumerate(getattr(self, key)):
                if source.format is not None:
                    yield f"data.{key}[{number}].format", source.format

    def _held_out_problems(self) -> Iterator[Problem]:
        ways = {
            "held_out": [source.plain() for source in self.held_out],
            "held_out_fraction": self.held_out_fraction,
            "held_out_column": self.held_out_column,
        }
        given = [name for name, value in ways.items() if value]
        if len(given) > 1:
            yield Problem(
                path=f"data.{given[1]}",
                value=ways[given[1]],
                message=f"data.{given[0]} already says which rows are held out",
                hint="Give one of the two",
            )

    def _share_problems(self) -> Iterator[Problem]:
        if not 0.0 <= self.held_out_fraction < 1.0:
            yield Problem(
                path="data.held_out_fraction",
                value=self.held_out_fraction,
                message="is not a share",
                allowed="0 ≤ value < 1",
            )
        if not 0.0 < self.near_similarity <= 1.0:
            yield Problem(
                path="data.near_similarity",
                value=self.near_similarity,
                message="is not a share",
                allowed="0 < value ≤ 1",
            )
        if not 0.0 <= self.max_failed <= 1.0:
            yield Problem(
                path="data.max_failed",
                value=self.max_failed,
                message="is not a share",
                allowed="0 ≤ value ≤ 1",
            )

    def _size_problems(self) -> Iterator[Problem]:
        leasts = (
            ("sequence_length", 2),
            ("unit_mb", 1),
            ("near_words", 1),
            ("near_permutations", 16),
        )
        for name, least in leasts:
            value = getattr(self, name)
            if value is not None and value < least:
                yield Problem(
                    path=f"data.{name}", value=value, message="is too small", allowed=f"≥ {least}"
                )

    @property
    def holds_out(self) -> bool:
        """Whether any row is to be kept for evaluation."""
        return bool(self.held_out or self.held_out_fraction or self.held_out_column)
