"""From a row to a cleaned sample that can be learnt from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from launcher.prepare.cleaning import Rewriter, cleaner_of
from launcher.prepare.shapes.chats import MAKERS
from launcher.prepare.shapes.columns import Columns, columns_of
from launcher.prepare.shapes.guess import recognise
from launcher.prepare.shapes.images import KeepImage, name_of_image
from launcher.prepare.shapes.messages import with_system
from launcher.prepare.shapes.prompts import as_chat, prompted
from launcher.prepare.shapes.sample import Message, Sample, changed_together, texts_of
from launcher.prepare.unusable import Unusable
from recipes.data import Data, Source
from recipes.recipe import Recipe


class Cleans(Protocol):
    """Cleans the texts of a row. Raises `Unusable` for a row that must not be used."""

    def clean(self, texts: Sequence[str]) -> list[str]: ...


def to_sample(
    row: Mapping[str, Any],
    recipe: Recipe,
    source: Source | None = None,
    cleaner: Cleans | None = None,
    keep_image: KeepImage = name_of_image,
) -> Sample:
    """The sample of a row. Raises `Unusable` with the reason it has none.

    `source` is the recipe's entry that the row comes from: its format and columns count before
    those of `data`. Without a `cleaner`, steps of data.clean that need a tokenizer or other texts
    are left out. `keep_image` is given the bytes of an image, and says where they will lie.
    """
    cleaner = cleaner or cleaner_of(recipe.data.clean, partial=True)
    sample = _cleaned_sample(row, recipe, source, cleaner, keep_image, asked=False)
    sample = _as_task_has_it(sample, recipe)
    _check(sample, recipe)
    return sample


def to_asked(
    row: Mapping[str, Any],
    recipe: Recipe,
    source: Source | None = None,
    cleaner: Cleans | None = None,
) -> Sample:
    """The same for a row whose answer or label may be missing: a chat may end with a question, a
    text have no label. Without a `cleaner` no step of data.clean drops it. Raises `Unusable`."""
    cleaner = cleaner or Rewriter(cleaner_of(recipe.data.clean, partial=True))
    return _cleaned_sample(row, recipe, source, cleaner, name_of_image, asked=True)


def _cleaned_sample(
    row: Mapping[str, Any],
    recipe: Recipe,
    source: Source | None,
    cleaner: Cleans,
    keep_image: KeepImage,
    *,
    asked: bool,
) -> Sample:
    columns = columns_of(row, recipe.data, source)
    if recipe.data.prompt:

        def make(change: Callable[[str], str]) -> Sample:
            return prompted(columns, recipe.data, change, keep_image, asked=asked)

        sample = changed_together(make, cleaner.clean)
    else:
        found = recognise(columns, recipe, source, asked=asked)
        sample = MAKERS[found.shape](found.columns, keep_image)
        sample = sample.with_texts(cleaner.clean)
        if not asked:
            _check_labels(found.shape, sample, found.columns, recipe.data)
    if sample.messages is not None:
        sample = replace(sample, messages=with_system(sample.messages, recipe.data.system))
        if isinstance(sample.rejected, list):
            sample = replace(sample, rejected=with_system(sample.rejected, recipe.data.system))
    _check_characters(sample)
    return sample


def _check_labels(shape: str, sample: Sample, columns: Columns, data: Data) -> None:
    needed = {"text_label": "label", "text_pair": "label", "text_labels": "labels"}.get(shape)
    if needed is None:
        return
    found = getattr(sample, needed)
    if found is None:
        raise Unusable("no label", f"{columns.name_of(needed)} is empty")
    for label in [found] if isinstance(found, str) else found:
        if data.labels and label not in data.labels:
            raise Unusable("unknown label", label[:100])


def _check_characters(sample: Sample) -> None:
    """JSON can hold halves of characters, which no file of text can."""
    beside = (sample.label, sample.labels, sample.tools, sample.images)
    is_text = sample.is_one_text and all(value is None for value in beside)
    try:
        (sample.text or "" if is_text else sample.to_json()).encode("utf-8")
    except UnicodeEncodeError as error:
        raise Unusable("half a character", f"{error.object[error.start]!r}") from error


def _as_task_has_it(sample: Sample, recipe: Recipe) -> Sample:
    """For a causal model a label is what the assistant answers."""
    if recipe.task != "causal_lm":
        return sample
    if sample.text_pair is not None:
        raise Unusable("no prompt", "data.prompt has to say how two texts are asked about")
    answer = sample.label if sample.labels is None else ", ".join(sample.labels)
    if answer is None:
        return sample
    assert sample.text is not None
    if not sample.text.strip():
        raise Unusable("empty")
    return Sample(messages=as_chat(sample.text, answer, recipe.data.system))


def _check(sample: Sample, recipe: Recipe) -> None:
    if recipe.task == "sequence_classification" and sample.label is None and sample.labels is None:
        raise Unusable("no label", "the row has none")
    if sample.messages is not None:
        _check_chat(sample.messages)
        if isinstance(sample.rejected, list):
            _check_chat(sample.rejected)
        return
    if sample.prompt is not None and sample.text is None:
        raise Unusable("no answer", "there is a prompt alone")
    for text in (sample.text, sample.text_pair, sample.rejected):
        if isinstance(text, str) and not text.strip():
            raise Unusable("empty")


def _check_chat(messages: list[Message]) -> None:
    *before, last = messages
    if last["role"] != "assistant":
        raise Unusable("no answer", f"the last message is by {last['role']}")
    if not any(message["role"] in ("user", "tool") for message in before):
        raise Unusable("no question", "nobody says anything before the answer")
    if "tool_calls" not in last and not "".join(texts_of(last)).strip():
        raise Unusable("empty")
