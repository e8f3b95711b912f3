"""The rows to train on, and how they become sequences of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from recipes.problem import Problem

CleaningStep = Literal[
    "normalize_unicode",
    "strip_html",
    "strip_urls",
    "strip_control",
    "remove_punctuation",
    "collapse_whitespace",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    train: list[str]
    """Files or folders of rows to train on (.jsonl, .json, .csv, .parquet, .txt), in this order."""

    held_out: list[str] = field(default_factory=list)
    """Files or folders of rows kept for evaluation."""

    held_out_fraction: float = 0.0
    """Share of the training rows kept for evaluation, chosen by the hash of their text."""

    format: Literal["auto", "messages", "text_label", "text"] = "auto"
    """What a row is: chat messages, text with a label, or plain text; `auto` looks at columns."""

    messages_column: str = "messages"
    """Column of chat messages, a list of {role, content}."""

    text_column: str = "text"
    """Column of the text."""

    label_column: str = "label"
    """Column of the label, or of the answer when a causal model is trained on text_label rows."""

    labels: list[str] = field(default_factory=list)
    """Labels of a classification in the order of their ids; empty takes the rows' own, sorted."""

    system: str | None = None
    """System message for chats that have none."""

    clean: list[CleaningStep] = field(default_factory=list)
    """Cleaning of every text, step by step in this order."""

    segment: Literal["none", "jieba"] = "none"
    """Put spaces between Chinese words: for filters and duplicates; tokenizers need none."""

    deduplicate: bool = True
    """Keep the first of rows that are equal after cleaning, before anything is held out."""

    min_characters: int = 1
    """Set rows with a shorter text aside (characters after cleaning, before segmenting)."""

    max_characters: int | None = None
    """Set rows with a longer text aside (characters after cleaning, before segmenting)."""

    sequence_length: int = 1024
    """Longest sequence the model is given (tokens); packed sequences are filled up to it."""

    too_long: Literal["set_aside", "truncate"] = "set_aside"
    """What happens to a sample of more tokens than sequence_length."""

    packing: bool = False
    """Put several samples into one sequence, attention kept inside each; not for classification."""

    unit_mb: int = 32
    """Size of the piece of a source that one preparing task reads and writes as one shard (MiB)."""

    def problems(self) -> Iterator[Problem]:
        if not self.train:
            yield Problem(path="data.train", value=self.train, message="names no file")
        if not 0.0 <= self.held_out_fraction < 1.0:
            yield Problem(
                path="data.held_out_fraction",
                value=self.held_out_fraction,
                message="is not a share",
                allowed="0 ≤ value < 1",
            )
        if self.held_out and self.held_out_fraction:
            yield Problem(
                path="data.held_out_fraction",
                value=self.held_out_fraction,
                message="data.held_out already names the held-out rows",
                hint="Give one of the two",
            )
        yield from self._size_problems()
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if twice:
            yield Problem(path="data.labels", value=twice, message="are named more than once")

    def _size_problems(self) -> Iterator[Problem]:
        for name, least in (("min_characters", 0), ("sequence_length", 2), ("unit_mb", 1)):
            value = getattr(self, name)
            if value < least:
                yield Problem(
                    path=f"data.{name}", value=value, message="is too small", allowed=f"≥ {least}"
                )
        if self.max_characters is not None and self.max_characters < self.min_characters:
            yield Problem(
                path="data.max_characters",
                value=self.max_characters,
                message=f"is below data.min_characters = {self.min_characters}",
            )
