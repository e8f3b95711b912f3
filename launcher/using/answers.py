"""Answers of several adapters, and of their base, to the same prompts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.light_tokenizer import LightTokenizer
from adapters.quiet import quiet_transformers
from launcher.prepare.reading import RawRow, read
from launcher.prepare.unusable import Unusable
from launcher.terminal import Display
from launcher.using.chosen import BASE, Chosen, choose, open_all, opening_of, recipe_of
from launcher.using.questions import Question, question_ids, to_question, units_of, way_of_texts
from recipes.errors import CheckpointError, DataError
from recipes.files import whole_file
from recipes.recipe import Recipe

if TYPE_CHECKING:
    from trainer.opened import OpenedBase


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A prompt with its answers by who gave them; a row that is no prompt has an error."""

    row: int
    prompt: str = ""
    right: str | None = None
    answers: dict[str, str] = field(default_factory=dict)
    error: str | None = None

    def line(self) -> dict[str, Any]:
        """As a line of JSON, without what there is not."""
        if self.error is not None:
            return {"row": self.row, "error": self.error}
        right = {"right": self.right} if self.right is not None else {}
        return {"row": self.row, "prompt": self.prompt, **right, "answers": self.answers}


def answer(
    runs: Sequence[str],
    prompt: str,
    display: Display,
    *,
    overrides: Sequence[str],
    max_new_tokens: int,
    system: str | None,
    base_only: bool,
) -> dict[str, str]:
    """The likeliest answer of each adapter to one prompt, or of the base alone, by name.

    The prompt becomes a chat when the tokenizer has a template; otherwise it is gone on with.
    """
    chosen = [] if base_only else choose(runs, overrides, display.line)
    recipe = chosen[0].recipe if chosen else recipe_of(runs[0], overrides)
    check_answers_prompts(recipe, runs[0])
    with quiet_transformers():
        display.phase("opening the base", 0, 0)
        opened = _open(recipe, chosen)
        display.phase("opening the base", 1, 1)
        question = Question(text=prompt)
        if opened.tokenizer.chat_template is not None:
            system = system if system is not None else recipe.data.system
            first = [{"role": "system", "content": system}] if system is not None else []
            question = Question(messages=[*first, {"role": "user", "content": prompt}])
        try:
            ids = question_ids(LightTokenizer.of(opened.tokenizer), question)
        except Unusable as error:
            raise DataError(f"PROMPT: cannot be asked: {error}") from error
        names = [adapter.name for adapter in chosen] or [BASE]
        found = {}
        for number, name in enumerate(names):
            display.phase("answering", number, len(names))
            [found[name]] = _generate(opened, name, [ids], max_new_tokens, batch_size=1)
        display.phase("answering", len(names), len(names))
    return found


def check_answers_prompts(recipe: Recipe, run: str) -> None:
    """Raises `CheckpointError` for a classification."""
    if recipe.task != "causal_lm":
        raise CheckpointError(
            f"{run}: is a {recipe.task}; only causal models answer prompts. Use shoal predict"
        )


def _open(recipe: Recipe, chosen: Sequence[Chosen]) -> OpenedBase:
    from trainer.opened import OpenedBase

    return open_all(chosen) if chosen else OpenedBase(opening_of(recipe))


def _generate(
    opened: OpenedBase,
    name: str,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    batch_size: int,
) -> list[str]:
    from trainer.generation import generate

    with opened.by(None if name == BASE else name) as model:
        return generate(
            model,
            opened.tokenizer,
            prompts,
            max_new_tokens=max_new_tokens,
            device=opened.device,
            batch_size=batch_size,
        )


def compare(
    runs: Sequence[str],
    prompts: str,
    display: Display,
    *,
    overrides: Sequence[str],
    with_base: bool,
    max_new_tokens: int,
    batch_size: int,
) -> tuple[list[str], list[Compared]]:
    """Who answered, and what, for every row of a file, in its order.

    Rows are what `shoal predict` takes, written as the first adapter's recipe says.
    """
    chosen = choose(runs, overrides, display.line)
    recipe = chosen[0].recipe
    check_answers_prompts(recipe, runs[0])
    with quiet_transformers():
        display.phase("opening the base", 0, 0)
        opened = open_all(chosen)
        display.phase("opening the base", 1, 1)
        has_template = opened.tokenizer.chat_template is not None
        way = way_of_texts(recipe, has_template=has_template, tell=display.line)
        tokenizer = LightTokenizer.of(opened.tokenizer)
        rows: list[Compared] = []
        asked: list[tuple[Compared, list[int]]] = []
        for number, raw in _rows(prompts, recipe):
            try:
                question = to_question(raw, recipe, way)
                ids = question_ids(
                    tokenizer, question, new=max_new_tokens, positions=opened.positions
                )
            except Unusable as error:
                rows.append(Compared(row=number, error=str(error)))
                continue
            rows.append(Compared(row=number, prompt=question.last, right=question.right))
            asked.append((rows[-1], ids))
        if not asked:
            reasons = "; ".join(sorted({str(row.error) for row in rows})) or "it has no rows"
            raise DataError(f"{prompts}: no row can be asked: {reasons}")
        names = [*([BASE] if with_base else []), *opened.names]
        for number, name in enumerate(names):
            display.phase("answering", number, len(names))
            texts = _generate(
                opened, name, [ids for _, ids in asked], max_new_tokens, batch_size=batch_size
            )
            for (row, _), text in zip(asked, texts, strict=True):
                row.answers[name] = text
        display.phase("answering", len(names), len(names))
    return names, rows


def _rows(file: str, recipe: Recipe) -> Iterator[tuple[int, RawRow]]:
    """The rows of a file, or of the files of a folder, with their numbers from 1."""
    lines_before: Counter[str] = Counter()
    for unit in units_of(file, recipe, "--prompts"):
        path, rows = unit.source.address, read(unit)
        for raw in rows:
            yield lines_before[path] + raw.number + 1, raw
        lines_before[path] += rows.lines


def write_compared(file: Path, rows: Sequence[Compared]) -> None:
    """A line for each row."""
    with whole_file(file) as stream:
        for row in rows:
            stream.write(json.dumps(row.line(), ensure_ascii=False) + "\n")
