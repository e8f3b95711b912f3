"""Answers of a model for a chat."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from adapters.light_tokenizer import LightTokenizer
from launcher.prepare.unusable import Unusable
from launcher.using.chosen import BASE
from launcher.using.questions import Question, question_ids
from recipes.errors import ClusterError, DataError

if TYPE_CHECKING:
    from trainer.generation import Sampling
    from trainer.opened import OpenedBase


class OpenedSpeaker:
    """Adapters that are open over one base."""

    def __init__(self, opened: OpenedBase, sampling: Sampling) -> None:
        self._opened = opened
        self._tokenizer = LightTokenizer.of(opened.tokenizer)
        self._sampling = sampling
        self.names: Sequence[str] = opened.names
        self.goes_on: bool = opened.tokenizer.chat_template is None

    def answer(self, who: str, messages: Sequence[dict[str, str]]) -> Generator[str]:
        """The answer in pieces. Raises `DataError` when the base takes no such chat."""
        import torch

        from trainer.generation import stream

        name = None if who == BASE else who
        try:
            yield from stream(self._opened, name, self._ids(messages), self._sampling)
        except torch.OutOfMemoryError as error:
            raise ClusterError(
                "The chat does not fit into the GPU's memory any more. /reset begins a new one"
            ) from error

    def _ids(self, messages: Sequence[dict[str, str]]) -> list[int]:
        question = Question(messages=list(messages))
        if self.goes_on:
            question = Question(text=messages[-1]["content"])
        try:
            return question_ids(self._tokenizer, question, new=1, positions=self._opened.positions)
        except Unusable as error:
            raise DataError(
                f"This chat cannot be asked: {error}. /reset begins a new one"
            ) from error
