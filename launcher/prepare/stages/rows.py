"""From a sample to the rows of a shard: what the trainer is given of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from adapters.light_tokenizer import left_tokenizer
from launcher.prepare.rendering import Rendered, ids_of_texts, render, token_ids
from launcher.prepare.shapes import Message, Sample
from launcher.prepare.stages.context import Context
from launcher.prepare.unusable import Unusable

PROMPTS_KEPT = 16


class Rows:
    """Makes the rows of samples of one source.

    A row is what `trainer.shard_writer.BatchBuilder` takes, and `cuts`: what was done to make it
    fit.
    """

    def __init__(self, context: Context, labels: Sequence[str], source: int) -> None:
        self._recipe = context.recipe
        self._tokenizer = left_tokenizer(context.tokenizer)
        self._label_ids = {label: number for number, label in enumerate(labels)}
        self._source = source

    def ids(self, samples: Sequence[Sample]) -> list[list[int] | None]:
        """What `of` may be given, of samples that come one after another."""
        return ids_of_texts(self._tokenizer, samples)

    def of(
        self, sample: Sample, sample_id: int, split: str, ids: list[int] | None = None
    ) -> list[dict[str, Any]]:
        """The rows of a sample, each alone in it. Raises `Unusable`."""
        if split == "held_out" and self._recipe.evaluate.choices:
            return self._choices(sample, sample_id)
        rows = [
            self._row(part, sample_id)
            for part in render(self._tokenizer, sample, self._recipe, ids)
        ]
        if sample.rejected is not None:
            return [row | {"choice": number, "answer": 0} for number, row in enumerate(rows)]
        if self._recipe.task == "sequence_classification":
            return [row | self._labelled(sample) for row in rows]
        return rows

    def _labelled(self, sample: Sample) -> dict[str, Any]:
        if sample.labels is not None:
            ids = sorted(self._label_ids[label] for label in sample.labels)
            return {"supervised": 1, "label_set": ids}
        assert sample.label is not None
        return {"supervised": 1, "label": self._label_ids[sample.label]}

    def _choices(self, sample: Sample, sample_id: int) -> list[dict[str, Any]]:
        """The same question once with each answer there is to choose from."""
        choices = self._recipe.evaluate.choices
        if sample.messages is None:
            raise Unusable("no chat", "evaluate.choices are answers in a chat")
        right = sample.messages[-1]["content"]
        if right not in choices:
            raise Unusable("answer is not among evaluate.choices", str(right)[:100])
        rows = []
        for number, choice in enumerate(choices):
            answer: Message = {"role": "assistant", "content": choice}
            messages = [*sample.messages[:-1], answer]
            parts = render(self._tokenizer, replace(sample, messages=messages), self._recipe)
            if len(parts) > 1:
                raise Unusable("too long", "evaluate.choices take one sequence each")
            told = {"choice": number, "answer": choices.index(right)}
            rows.append(self._row(parts[0], sample_id) | told)
        return rows

    def _row(self, rendered: Rendered, sample_id: int) -> dict[str, Any]:
        return {
            "input_ids": rendered.input_ids,
            "labels": rendered.labels,
            "lengths": [len(rendered.input_ids)],
            "samples": [sample_id],
            "sources": [self._source],
            "supervised": rendered.supervised,
            "token_types": rendered.token_types,
            "images": rendered.images,
            "cuts": [cut.how for cut in rendered.cuts],
        }

    def prompts(self, sample: Sample, sample_id: int) -> list[dict[str, Any]]:
        """What a chat asks and what is right, for answers while training; none of a text, nor of a
        chat that cannot be asked."""
        if not sample.messages or sample.only_prepared is not None:
            return []
        *asked, answer = sample.messages
        try:
            ids = token_ids(self._tokenizer, asked, tools=sample.tools, prompt=True)
        except Unusable:  # there are templates that write a whole chat and refuse a part of it
            return []
        told = {"sample": sample_id, "messages": asked, "answer": answer["content"]}
        return [{**told, "prompt_ids": ids}]
