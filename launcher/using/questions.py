"""What an adapter is asked: the rows it was trained on without their answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adapters.light_tokenizer import LightTokenizer
from launcher.prepare.reading import RawRow, read
from launcher.prepare.rendering import token_ids
from launcher.prepare.shapes import Message, Sample, to_asked, to_sample
from launcher.prepare.shapes.prompts import as_chat
from launcher.prepare.shapes.sample import texts_of
from launcher.prepare.sources.source import Unit, find_sources, sources_of
from launcher.prepare.sources.units import unit_bytes, units
from launcher.prepare.unusable import Unusable
from recipes import data as recipe_data
from recipes.errors import DataError
from recipes.recipe import Recipe

Way = Literal["chat", "text"]
"""How a causal model is asked a plain text: as what a person says, or to go on with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A chat up to the answer, or a text; with the answer or label that is right, if known."""

    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None
    text: str | None = None
    text_pair: str | None = None
    right: str | None = None
    right_labels: list[str] | None = None
    """In place of `right`, where a text can have several."""

    @property
    def last(self) -> str:
        """What was said last, for a person to see."""
        return "\n".join(texts_of(self.messages[-1])) if self.messages else self.text or ""


def to_question(raw: RawRow, recipe: Recipe, way: Way) -> Question:
    """The question of a row, made as it was for training. Raises `Unusable`."""
    if raw.columns is None:
        raise Unusable(raw.reason, raw.detail)
    question = _question(to_asked(raw.columns, recipe), recipe, way)
    if not question.last.strip():
        raise Unusable("empty")
    return question


def _question(sample: Sample, recipe: Recipe, way: Way) -> Question:
    if sample.images:
        raise Unusable("images", "only texts are answered so far")
    if sample.messages is not None:
        messages, right = list(sample.messages), None
        if messages[-1]["role"] == "assistant":
            right = "\n".join(texts_of(messages.pop()))
        if all(message["role"] == "system" for message in messages):
            raise Unusable("no question", "there is but an answer")
        return Question(messages=messages, tools=sample.tools, right=right)
    if sample.prompt is not None:
        return Question(text=sample.prompt, right=sample.text)
    if recipe.task == "sequence_classification":
        return Question(
            text=sample.text,
            text_pair=sample.text_pair,
            right=sample.label,
            right_labels=sample.labels,
        )
    right = sample.label if sample.labels is None else ", ".join(sample.labels)
    if way == "chat" or right is not None:
        assert sample.text is not None
        return Question(messages=as_chat(sample.text, None, recipe.data.system), right=right)
    return Question(text=sample.text, text_pair=sample.text_pair, right=right)


def question_ids(
    tokenizer: LightTokenizer, question: Question, *, new: int = 0, positions: int | None = None
) -> list[int]:
    """A question for a causal model as token ids, up to where the answer begins.

    Raises `Unusable` when the tokenizer's template takes no such chat, or the base has no room for
    it with `new` tokens more.
    """
    if question.messages is None:
        [ids] = tokenizer.backend.ids_of([question.text or ""], special=True)
    else:
        ids = token_ids(tokenizer, question.messages, tools=question.tools, prompt=True)
    if not ids:
        raise Unusable("empty", "the tokenizer makes no token of it")
    check_room(len(ids), new, positions)
    return ids


def check_room(tokens: int, new: int, positions: int | None) -> None:
    """Raises `Unusable` for what is longer than a base takes, if it says how much that is."""
    if positions is not None and tokens + new > positions:
        also = f" and {new} new ones" if new else ""
        raise Unusable("too long", f"{tokens} tokens{also}; the base takes {positions}")


def units_of(file: str, recipe: Recipe, key: str) -> list[Unit]:
    """The units of what a path stands for in `data.train` too, which a message calls `key`.

    Raises `DataError` when it is not there or of an unknown kind.
    """
    spec = recipe_data.Source(path=file)
    sources = sources_of(spec, Path(recipe.storage.cache), key, split="held_out")
    return units(sources, unit_bytes(recipe.data, sources))


def way_of_texts(recipe: Recipe, *, has_template: bool, tell: Callable[[str], None]) -> Way:
    """How plain texts are asked: as the run's own rows were, which are looked at if need be."""
    shape = recipe.data.format
    if recipe.task != "causal_lm" or shape == "text":
        return "text"
    if shape not in ("auto", "prompt_completion"):
        return "chat"
    trained = _trained_on(recipe)
    if trained is not None:
        return "chat" if trained.messages is not None else "text"
    tell(
        "data.train is not there any more: texts without a label are "
        + ("asked as chats; data.format=text goes on with them" if has_template else "gone on with")
    )
    return "chat" if has_template else "text"


def _trained_on(recipe: Recipe) -> Sample | None:
    """The first sample that the run was trained on, if its files are still there."""
    try:
        sources = find_sources(recipe.data, Path(recipe.storage.cache))
        for unit in units(sources[:1], unit_bytes(recipe.data, sources)):
            for raw in read(unit):
                try:
                    if raw.columns is not None:
                        return to_sample(raw.columns, recipe, unit.source.spec)
                except Unusable:
                    continue
    except (DataError, OSError):
        return None
    return None
