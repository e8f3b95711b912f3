"""The first stage: from the rows of files to what a model is given. Needs CPUs only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from adapters.light_tokenizer import LightTokenizer, left_tokenizer
from launcher.prepare.reading import RawRow, read
from launcher.prepare.rendering import render_chat, render_classified
from launcher.prepare.shapes import Message
from launcher.prepare.sources.source import Unit
from launcher.prepare.unusable import Unusable
from launcher.using.questions import Question, Way, check_room, question_ids, to_question
from recipes.recipe import Recipe

SCHEMA = pa.schema(
    [
        ("number", pa.int64()),  # of the row in its unit
        ("input", pa.string()),  # its columns, JSON; null when it has none
        ("right", pa.string()),  # the answer or label that it names, or null
        ("right_labels", pa.list_(pa.string())),  # likewise, where a text can have several
        ("error", pa.string()),  # why it cannot be used, or null
        # A sequence for each answer to choose from; of other tasks one.
        ("ids", pa.list_(pa.list_(pa.int32()))),
        ("labels", pa.list_(pa.list_(pa.int32()))),  # of the same lengths; empty without choices
        ("token_types", pa.list_(pa.int8())),  # of a pair to classify which text a token is of
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What every task of this stage needs to know. `work` is a folder that all nodes see."""

    recipe: Recipe
    tokenizer_folder: Path
    """In which the driver leaves the base's tokenizer."""
    work: Path
    way: Way
    choices: tuple[str, ...]
    positions: int | None
    """Tokens that the base takes, with those it answers, if it says so."""
    max_new_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of one unit; `lines` is how far the numbers of its rows go."""

    unit: int
    rows: int
    lines: int
    unusable: Counter[str]


def asked_file(work: Path, unit: int) -> Path:
    return work / f"asked_{unit:05d}.arrow"


def read_asked(work: Path, unit: int) -> pa.Table:
    """The rows of a unit after this stage, mapped into memory."""
    return pa.ipc.open_file(pa.memory_map(str(asked_file(work, unit)))).read_all()


def ask_unit(unit: Unit, asking: Asking) -> Asked:
    """Render the rows of one unit; leaves `asked_<unit>.arrow` in the work folder."""
    made: list[dict[str, Any]] = []
    unusable: Counter[str] = Counter()
    rows = read(unit)
    for raw in rows:
        row: dict[str, Any] = {"number": raw.number, "input": _input(raw)}
        try:
            question = to_question(raw, asking.recipe, asking.way)
            row |= _sequences(question, asking)
            row |= {"right": question.right, "right_labels": question.right_labels}
        except Unusable as error:
            unusable[error.reason] += 1
            row["error"] = str(error)
        made.append(row)
    table = pa.Table.from_pylist(made, schema=SCHEMA)
    with (
        pa.OSFile(str(asked_file(asking.work, unit.number)), "wb") as sink,
        pa.ipc.new_file(sink, SCHEMA) as writer,
    ):
        writer.write_table(table)
    return Asked(unit=unit.number, rows=len(made), lines=rows.lines, unusable=unusable)


def _input(raw: RawRow) -> str | None:
    if raw.columns is None:
        return json.dumps(raw.text, ensure_ascii=False) if raw.text else None
    return json.dumps(raw.columns, ensure_ascii=False, default=str)


def _sequences(question: Question, asking: Asking) -> dict[str, Any]:
    """Token ids and labels of a question: once with each choice, if there are any."""
    data = asking.recipe.data
    tokenizer = left_tokenizer(asking.tokenizer_folder)
    if asking.recipe.task == "sequence_classification":
        rendered = render_classified(
            tokenizer,
            question.text or "",
            question.text_pair,
            data.sequence_length,
            data.too_long,
        )
        return {
            "ids": [rendered.input_ids],
            "labels": [[]],
            "token_types": rendered.token_types,
        }
    if not asking.choices:
        new, positions = asking.max_new_tokens, asking.positions
        ids = question_ids(tokenizer, question, new=new, positions=positions)
        return {"ids": [ids], "labels": [[]]}
    if question.messages is None:
        raise Unusable("no chat", "evaluate.choices are answers in a chat")
    found = list(_with_choices(tokenizer, question, asking.choices))
    check_room(max(len(ids) for ids, _ in found), 0, asking.positions)
    return {"ids": [ids for ids, _ in found], "labels": [labels for _, labels in found]}


def _with_choices(
    tokenizer: LightTokenizer, question: Question, choices: Sequence[str]
) -> Iterator[tuple[list[int], list[int]]]:
    assert question.messages is not None
    for choice in choices:
        answered: list[Message] = [*question.messages, {"role": "assistant", "content": choice}]
        rendered = render_chat(tokenizer, answered, tools=question.tools)
        yield rendered.input_ids, rendered.labels
