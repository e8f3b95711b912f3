"""The second stage: a worker opens base and adapter once, and answers slice after slice."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.quiet import quiet_transformers
from launcher.predict.asking import read_asked
from recipes.errors import ClusterError, ShoalError, StorageError
from trainer.opening import Opening

if TYPE_CHECKING:
    from trainer.opened import OpenedBase

_DIGITS = 6
_ADAPTER = "adapter"
# Probability above which a text has a label, where it can have several.
_HAS_LABEL = 0.5

Judged = tuple[str, str] | tuple[list[str], list[str]]
"""Right, and predicted: an answer or label, or the labels where a text can have several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Neighbouring rows of one unit, which one worker answers. They do not depend on how many
    workers there are, so neither do the batches, nor a single bit of the answers."""

    number: int
    unit: int
    begin: int
    end: int
    lines_before: int
    """Of the unit's file, before the unit."""
    file: str | None
    """Named in the answers where there are several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """What every worker needs to know."""

    opening: Opening
    adapter: Path
    work: Path
    choices: tuple[str, ...]
    batch_size: int
    max_new_tokens: int
    threads: int | None
    """CPU threads of a worker; None on a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The lines of a slice, one for each of its rows, and what was predicted where a row names what
    is right."""

    number: int
    lines: list[str]
    judged: list[Judged]
    """Right, and predicted."""


class Answerer:
    """The actor of Ray Data. Errors go back as values: Ray would wrap them in its own."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._opened: OpenedBase | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.table({"answered": [self._call(part) for part in table["slice"].to_pylist()]})

    def _call(self, part: bytes) -> bytes:
        import torch

        try:
            with quiet_transformers():
                self._opened = self._opened or _open(self._answering)
                result: Any = _answer(pickle.loads(part), self._answering, self._opened)
        except ShoalError as error:
            result = error
        except torch.OutOfMemoryError:
            result = ClusterError(
                f"--batch-size = {self._answering.batch_size}: does not fit into the memory of a "
                "GPU. Lower it, or set base.quantization=nf4"
            )
        except OSError as error:
            result = StorageError(f"{self._answering.work}: {error}. Every node must see it")
        return pickle.dumps(result)


def _open(answering: Answering) -> OpenedBase:
    import torch

    from trainer.opened import OpenedBase

    device = None
    if answering.threads is not None:
        torch.set_num_threads(answering.threads)
        device = torch.device("cpu")
    opened = OpenedBase(answering.opening, device)
    opened.add(_ADAPTER, answering.adapter)
    return opened


def _answer(part: Slice, answering: Answering, opened: OpenedBase) -> Answered:
    rows = read_asked(answering.work, part.unit).slice(part.begin, part.end - part.begin)
    found = rows.to_pylist()
    asked = [row for row in found if row["error"] is None]
    predicted = iter(list(_predict(asked, answering, opened)))
    lines, judged = [], []
    for row in found:
        line: dict[str, Any] = {"row": part.lines_before + row["number"] + 1}
        if part.file is not None:
            line["file"] = part.file
        line |= {"prediction": None}
        if row["error"] is None:
            line |= next(predicted)
            right = row["right_labels"] if answering.opening.multi_label else row["right"]
            if right is not None:
                line["right"] = right
                judged.append((right, line["prediction"]))
        else:
            line["error"] = row["error"]
        line["input"] = json.loads(row["input"]) if row["input"] is not None else None
        lines.append(json.dumps(line, ensure_ascii=False))
    return Answered(number=part.number, lines=lines, judged=judged)


def _predict(
    rows: Sequence[dict[str, Any]], answering: Answering, opened: OpenedBase
) -> Iterator[dict[str, Any]]:
    """What is predicted for each row: an answer, or a label or choice with the probabilities."""
    from trainer.generation import generate
    from trainer.prediction import choice_probabilities, label_probabilities

    names = answering.choices or answering.opening.labels
    if not names:
        with opened.by(_ADAPTER) as model:
            texts = generate(
                model,
                opened.tokenizer,
                [row["ids"][0] for row in rows],
                max_new_tokens=answering.max_new_tokens,
                device=opened.device,
                batch_size=answering.batch_size,
            )
        yield from ({"prediction": text} for text in texts)
        return
    size = answering.batch_size
    if answering.choices:
        questions = [list(zip(row["ids"], row["labels"], strict=True)) for row in rows]
        found = choice_probabilities(opened, _ADAPTER, questions, batch_size=size)
    else:
        given = [(row["ids"][0], row["token_types"] or []) for row in rows]
        found = label_probabilities(opened, _ADAPTER, given, batch_size=size)
    for values in found:
        rounded = {name: round(v, _DIGITS) for name, v in zip(names, values, strict=True)}
        prediction: str | list[str] = names[values.index(max(values))]
        if answering.opening.multi_label:
            prediction = [name for name, v in zip(names, values, strict=True) if v > _HAS_LABEL]
        yield {"prediction": prediction, "probabilities": rounded}
