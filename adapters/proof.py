"""Proof that a saved adapter is what was trained: PEFT opens it over the base in a fresh process,
and the logits are the same."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from adapters.base import load_base
from adapters.quantization import quantization_of
from recipes.base import Base
from recipes.errors import CheckpointError

_TIMEOUT_S = 1800.0
# Beside the base itself, for a process that loads it.
_ROOM_BYTES = 2 * 2**30
# Of the largest logit. Eight bits of mantissa, kernels of another device, products of packed
# weights in float16: what a missing or torn adapter does is far above.
_ALLOWED = {"float32": 1e-4, "bfloat16": 5e-2}
_ALLOWED_QUANTIZED = 5e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the model was asked while it was trained."""

    base: Base
    base_folder: Path
    task: str
    dtype: str
    labels: Sequence[str]
    multi_label: bool
    ids: tuple[int, ...]
    on_gpu: bool


def allowed_difference(question: Question) -> float:
    """How far logits may lie apart, as a share of the largest of them."""
    if question.base.quantization != "none":
        return _ALLOWED_QUANTIZED
    return _ALLOWED[question.dtype] * (10 if question.on_gpu else 1)


def prove(adapter: Path, question: Question, logits: torch.Tensor) -> float | None:
    """The largest difference from `logits`, as a share of the largest of them; None when there is
    no memory for a second model here.

    Raises `CheckpointError` when PEFT cannot open the adapter, or it is another one.
    """
    if not _has_room(question.base_folder):
        return None
    found = torch.from_numpy(_in_fresh_process(adapter, question))
    scale = float(logits.abs().max())
    if found.shape != logits.shape:
        raise CheckpointError(
            f"{adapter}: opened again, it gives logits of the shape {tuple(found.shape)}, not "
            f"{tuple(logits.shape)} as while it was trained"
        )
    difference = float((found - logits).abs().max()) / max(scale, 1e-30)
    if not difference <= allowed_difference(question):
        raise CheckpointError(
            f"{adapter}: opened again over its base, its logits differ by {difference:.2g} of the "
            "largest from those it had while it was trained; nothing is saved. Its kind, with this "
            "base, is not what PEFT opens: choose another adapter.kind, or set checkpoint.prove: "
            "false if you know why"
        )
    return difference


def _has_room(folder: Path) -> bool:
    needed = sum(file.stat().st_size for file in folder.glob("*.safetensors")) + _ROOM_BYTES
    with open("/proc/meminfo", encoding="ascii") as lines:
        told = dict(line.split(":", 1) for line in lines)
    return int(told["MemAvailable"].split()[0]) * 1024 > needed


def _in_fresh_process(adapter: Path, question: Question) -> np.ndarray:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, adapter, question), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(_TIMEOUT_S):
            raise CheckpointError(f"{adapter}: was not opened again within {_TIMEOUT_S:.0f} s")
        found = ours.recv()
    except EOFError as error:
        process.join()
        raise CheckpointError(
            f"{adapter}: the process that opened it again ended with {process.exitcode}"
        ) from error
    finally:
        process.kill()
        process.join()
    if isinstance(found, str):
        raise CheckpointError(f"{adapter}: cannot be opened again over its base: {found}")
    logits: np.ndarray = found
    return logits


def _answer(to: Connection, adapter: Path, question: Question) -> None:
    """In the fresh process: the logits, or what went wrong."""
    os.nice(10)  # training goes on meanwhile
    try:
        to.send(_logits(adapter, question))
    except Exception as error:  # whatever PEFT raises is the answer
        to.send(f"{type(error).__name__}: {error}")


@torch.no_grad()
def _logits(adapter: Path, question: Question) -> np.ndarray:
    base = load_base(
        question.base_folder,
        question.task,
        getattr(torch, question.dtype),
        "eager" if question.base.attention == "eager" else "sdpa",
        labels=question.labels,
        multi_label=question.multi_label,
        quantization=quantization_of(question.base, torch.device("cpu")),
        allow_pickle=question.base.allow_pickle,
        new_tokens=question.base.new_tokens,
    )
    model = PeftModel.from_pretrained(base.model, str(adapter)).eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=question.dtype == "bfloat16"):
        found = ask(model, question.ids, torch.device("cpu"), question.task)
    array: np.ndarray = found.numpy()
    return array


def ask(
    model: Callable[..., object], ids: Sequence[int], device: torch.device, task: str
) -> torch.Tensor:
    """The logits of one row of tokens, float32 on the CPU: of each token, or of the labels."""
    row = torch.tensor([list(ids)], device=device)
    inputs: Mapping[str, object] = {"input_ids": row, "use_cache": False}
    if task == "sequence_classification":
        inputs = {"input_ids": row, "attention_mask": torch.ones_like(row)}
    logits: torch.Tensor = model(**inputs).logits  # type: ignore[attr-defined]
    return logits[0].detach().float().cpu()
