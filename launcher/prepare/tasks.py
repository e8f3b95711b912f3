"""What runs on Ray: one task per unit and stage, each writing its own files.

Stage `clean` reads a unit and leaves its samples as an Arrow file; stage `tokenize` turns those
that were selected into shards. Tasks return small reports; rows never pass through the driver.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from adapters.tokenizer import load_tokenizer
from launcher.prepare import selection
from launcher.prepare.packing import pack
from launcher.prepare.reading import RawRow, read
from launcher.prepare.rendering import Rendered, render, token_ids
from launcher.prepare.shapes import Message, Sample, to_sample
from launcher.prepare.sources import Unit
from launcher.prepare.unusable import Unusable
from recipes.errors import ShoalError, StorageError
from recipes.recipe import Recipe
from trainer.shards import write_shard

PROMPTS_KEPT = 16
_SHOWN_CHARACTERS = 200

_CLEANED = pa.schema(
    [
        ("number", pa.int64()),  # of the row in its unit
        ("sample", pa.string()),  # Sample.to_json
        ("digest", pa.binary(16)),
        ("question", pa.binary(16)),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every task needs to know. `work` is a folder that all nodes see."""

    recipe: Recipe
    tokenizer_folder: str
    work: Path
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanReport:
    """What came of reading one unit; `lines` is how far the numbers of its rows go."""

    unit: int
    rows: int
    samples: int
    lines: int
    labels: list[str]
    rejected: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeReport:
    """Shards of one unit by split, prompts for generation, and rows that did not fit."""

    unit: int
    shards: dict[str, dict[str, Any]]
    prompts: list[dict[str, Any]]
    rejected: list[dict[str, Any]]


def clean_unit(unit: Unit, context: Context) -> CleanReport:
    """Read and clean one unit; leaves `cleaned_<unit>.arrow` in the work folder."""
    kept: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    labels: set[str] = set()
    rows = lines = 0
    for raw in read(unit):
        rows, lines = rows + 1, raw.number + 1
        try:
            sample = _sample(raw, unit, context.recipe)
        except Unusable as error:
            text = raw.text or json.dumps(raw.columns, ensure_ascii=False, default=str)
            rejected.append(_reject(raw.number, error.reason, error.detail, text))
            continue
        if sample.label is not None:
            labels.add(sample.label)
        kept.append(
            {
                "number": raw.number,
                "sample": sample.to_json(),
                "digest": sample.digest(),
                "question": sample.question_digest(),
            }
        )
    table = pa.Table.from_pylist(kept, schema=_CLEANED)
    with (
        pa.OSFile(str(cleaned_file(context.work, unit.number)), "wb") as sink,
        pa.ipc.new_file(sink, _CLEANED) as writer,
    ):
        writer.write_table(table)
    return CleanReport(
        unit=unit.number,
        rows=rows,
        samples=len(kept),
        lines=lines,
        labels=sorted(labels),
        rejected=rejected,
    )


def _sample(raw: RawRow, unit: Unit, recipe: Recipe) -> Sample:
    if raw.columns is None:
        raise Unusable(raw.reason, raw.detail)
    return to_sample(raw.columns, recipe, unit.source.spec)


def _reject(number: int, reason: str, detail: str, text: str) -> dict[str, Any]:
    return {"number": number, "reason": reason, "detail": detail, "text": text[:_SHOWN_CHARACTERS]}


def cleaned_file(work: Path, unit: int) -> Path:
    return work / f"cleaned_{unit:05d}.arrow"


def verdict_file(work: Path, unit: int) -> Path:
    return work / f"verdicts_{unit:05d}.npy"


def read_cleaned(work: Path, unit: int) -> pa.Table:
    """The samples of a unit after the first stage."""
    return pa.ipc.open_file(pa.memory_map(str(cleaned_file(work, unit)))).read_all()


@dataclass(slots=True)
class _Made:
    """Rows of one split of a unit while they are made."""

    rendered: list[Rendered] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)


def tokenize_unit(unit: Unit, context: Context) -> TokenizeReport:
    """Tokenise the selected samples of a unit; leaves one shard per split that has rows."""
    tokenizer = _tokenizer(context.tokenizer_folder, tuple(context.recipe.base.new_tokens))
    table = read_cleaned(context.work, unit.number)
    verdicts = selection.Selection(codes=np.load(verdict_file(context.work, unit.number)))
    made = {"train": _Made(), "held_out": _Made()}
    rejected: list[dict[str, Any]] = []
    prompts: list[dict[str, Any]] = []
    for index, (number, text) in enumerate(
        zip(table["number"].to_pylist(), table["sample"].to_pylist(), strict=True)
    ):
        verdict = verdicts.verdict(index)
        if verdict not in (selection.TRAIN, selection.HELD_OUT):
            rejected.append(_reject(number, verdict, "", text))
            continue
        split = "train" if verdict == selection.TRAIN else "held_out"
        sample, sample_id = Sample.from_json(text), (unit.number << 32) | number
        try:
            _add(made[split], tokenizer, sample, sample_id, split, context)
        except Unusable as error:
            rejected.append(_reject(number, error.reason, error.detail, text))
            continue
        if split == "held_out" and sample.messages and len(prompts) < PROMPTS_KEPT:
            prompts.append(_prompt(tokenizer, sample, sample_id))
    shards = {
        split: write_shard(context.work.parent / split / f"shard_{unit.number:05d}.arrow", rows)
        for split, part in made.items()
        if (rows := list(_rows(part, split, context.recipe)))
    }
    return TokenizeReport(unit=unit.number, shards=shards, prompts=prompts, rejected=rejected)


@cache
def _tokenizer(folder: str, new_tokens: tuple[str, ...]) -> Any:
    return load_tokenizer(Path(folder), new_tokens)


def _add(
    made: _Made, tokenizer: Any, sample: Sample, sample_id: int, split: str, context: Context
) -> None:
    recipe = context.recipe
    if split == "held_out" and recipe.evaluate.choices:
        made.rows += _choices(tokenizer, sample, sample_id, recipe)
        return
    parts = render(tokenizer, sample, recipe)
    if sample.rejected is not None:
        for number, part in enumerate(parts):
            made.rows.append(_row([part], [sample_id]) | {"choice": number, "answer": 0})
    elif recipe.task == "sequence_classification":
        if sample.label is None:
            raise Unusable("several labels", "only one label a text is trained on so far")
        label = context.labels.index(sample.label)
        made.rows.append(_row(parts, [sample_id]) | {"supervised": 1, "label": label})
    else:
        made.rendered += parts
        made.ids += [sample_id] * len(parts)


def _choices(
    tokenizer: Any, sample: Sample, sample_id: int, recipe: Recipe
) -> Iterator[dict[str, Any]]:
    """The same question once with each answer there is to choose from."""
    choices = recipe.evaluate.choices
    if sample.messages is None:
        raise Unusable("no chat", "evaluate.choices are answers in a chat")
    right = sample.messages[-1]["content"]
    if right not in choices:
        raise Unusable("answer is not among evaluate.choices", str(right)[:100])
    rows = []
    for number, choice in enumerate(choices):
        messages: list[Message] = [
            *sample.messages[:-1],
            {"role": "assistant", "content": choice},
        ]
        parts = render(tokenizer, replace(sample, messages=messages), recipe)
        if len(parts) > 1:
            raise Unusable("too long", "evaluate.choices take one sequence each")
        rows.append(_row(parts, [sample_id]) | {"choice": number, "answer": choices.index(right)})
    return iter(rows)


def _rows(made: _Made, split: str, recipe: Recipe) -> Iterable[dict[str, Any]]:
    """The rows of a shard: as they are, or packed."""
    yield from made.rows
    lengths = [len(rendered.input_ids) for rendered in made.rendered]
    packs: Sequence[Sequence[int]] = [[index] for index in range(len(lengths))]
    if recipe.data.packing:
        packs = pack(lengths, recipe.data.sequence_length)
    for members in packs:
        yield _row([made.rendered[i] for i in members], [made.ids[i] for i in members])


def _row(parts: Sequence[Rendered], ids: Sequence[int]) -> dict[str, Any]:
    return {
        "input_ids": [token for part in parts for token in part.input_ids],
        "labels": [label for part in parts for label in part.labels],
        "lengths": [len(part.input_ids) for part in parts],
        "samples": list(ids),
        "supervised": sum(part.supervised for part in parts),
        "label": -1,
        "choice": -1,
        "answer": -1,
    }


def _prompt(tokenizer: Any, sample: Sample, sample_id: int) -> dict[str, Any]:
    assert sample.messages is not None
    *asked, answer = sample.messages
    return {
        "sample": sample_id,
        "messages": asked,
        "answer": answer["content"],
        "prompt_ids": token_ids(tokenizer, asked, tools=sample.tools, prompt=True),
    }


class Working(Protocol):
    """What tasks are told, with a folder to work in that all nodes see."""

    @property
    def work(self) -> Path: ...


W = TypeVar("W", bound=Working)


def settle_ray_data() -> None:
    """Results come in order, and Ray Data keeps its voice down."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    settings = DataContext.get_current()
    settings.enable_progress_bars = False
    settings.print_on_execution_start = False
    settings.execution_options.preserve_order = True


def run_on_ray(
    function: Callable[[Unit, W], Any],
    units: Sequence[Unit],
    context: W,
    progress: Callable[[int, int], None],
) -> list[Any]:
    """Call `function` once for each unit, each in a Ray Data task of its own; results in order.

    One unit is one block, so what a task writes does not depend on the number of CPUs. Raises the
    `ShoalError` of the first task that had one.
    """
    import ray

    settle_ray_data()
    items = [{"unit": pickle.dumps(unit)} for unit in units]
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(
        _call,  # type: ignore[arg-type]
        fn_kwargs={"function": function, "context": context},
    )
    results = []
    progress(0, len(units))
    for row in dataset.iter_rows():
        result = pickle.loads(row["result"])
        if isinstance(result, ShoalError):
            raise result
        results.append(result)
        progress(len(results), len(units))
    return results


def _call(row: dict[str, Any], function: Callable[[Unit, W], Any], context: W) -> dict[str, Any]:
    # An error goes back as a value: Ray would wrap it in its own, and lose it on the way.
    try:
        result = function(pickle.loads(row["unit"]), context)
    except ShoalError as error:
        result = error
    except OSError as error:
        result = StorageError(f"{context.work}: {error}. Preparing needs room and access there")
    return {"result": pickle.dumps(result)}
