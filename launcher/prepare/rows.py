"""From a sample to the rows of a shard: what the trainer is given of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from adapters.tokenizer import load_tokenizer
from launcher.prepare.context import Context
from launcher.prepare.rendering import Rendered, fit, render, render_text, token_ids
from launcher.prepare.samples import Sample
from launcher.prepare.unusable import Unusable

PROMPTS_KEPT = 16


@cache
def _tokenizer(folder: str, new_tokens: tuple[str, ...]) -> Any:
    return load_tokenizer(Path(folder), new_tokens)


class Rows:
    """Makes the rows of samples of one source."""

    def __init__(self, context: Context, labels: tuple[str, ...], source: int) -> None:
        self._recipe = context.recipe
        self._tokenizer = _tokenizer(
            context.tokenizer_folder, tuple(context.recipe.base.new_tokens)
        )
        self._labels = labels
        self._source = source

    def of(self, sample: Sample, sample_id: int, split: str) -> list[dict[str, Any]]:
        """The rows of a sample, each alone in it. Raises `Unusable`."""
        data, choices = self._recipe.data, self._recipe.evaluate.choices
        if self._recipe.task == "sequence_classification":
            assert sample.text is not None and sample.label is not None
            ids = render_text(self._tokenizer, sample.text, data.sequence_length, data.too_long)
            row = self._row(Rendered(input_ids=ids, labels=[]), sample_id)
            return [row | {"supervised": 1, "label": self._labels.index(sample.label)}]
        if split == "held_out" and choices:
            return self._choices(sample, sample_id)
        rendered = fit(render(self._tokenizer, sample), data.sequence_length, data.too_long)
        return [self._row(rendered, sample_id)]

    def _choices(self, sample: Sample, sample_id: int) -> list[dict[str, Any]]:
        """The same question once with each answer there is to choose from."""
        data, choices = self._recipe.data, self._recipe.evaluate.choices
        if sample.messages is None:
            raise Unusable("no chat", "evaluate.choices are answers in a chat")
        right = sample.messages[-1]["content"]
        if right not in choices:
            raise Unusable("answer is not among evaluate.choices", right[:100])
        rows = []
        for number, choice in enumerate(choices):
            messages = [*sample.messages[:-1], {"role": "assistant", "content": choice}]
            rendered = render(self._tokenizer, Sample(messages=messages))
            rendered = fit(rendered, data.sequence_length, data.too_long)
            told = {"choice": number, "answer": choices.index(right)}
            rows.append(self._row(rendered, sample_id) | told)
        return rows

    def _row(self, rendered: Rendered, sample_id: int) -> dict[str, Any]:
        return {
            "input_ids": rendered.input_ids,
            "labels": rendered.labels,
            "lengths": [len(rendered.input_ids)],
            "samples": [sample_id],
            "sources": [self._source],
            "supervised": rendered.supervised,
        }

    def prompts(self, sample: Sample, sample_id: int) -> list[dict[str, Any]]:
        """What a chat asks and what is right, for answers while training; none of a text."""
        if not sample.messages:
            return []
        asked = sample.messages[:-1]
        return [
            {
                "sample": sample_id,
                "messages": asked,
                "answer": sample.messages[-1]["content"],
                "prompt_ids": token_ids(self._tokenizer, asked, prompt=True),
            }
        ]
