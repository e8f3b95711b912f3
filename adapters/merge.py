"""Merging an adapter into its unquantised base, and writing what comes of it."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from adapters.base import load_base, model_class
from adapters.base_ref import read_config
from recipes.errors import AdapterError, BaseModelError, CheckpointError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
# Of the largest logit of a row: what sums in another order change; a wrong merge changes far more.
_TOLERANCE = 1e-4
_GENERATION = "generation_config.json"


@dataclass(frozen=True, slots=True)
class Merged:
    """A model in float32 on the CPU."""

    model: PreTrainedModel
    difference: float
    """How far its logits are from those of base and adapter, as a part of the largest logit."""


def check_mergeable(adapter: Path, base: Path) -> None:
    """Raises `AdapterError` when an adapter has no merge, `BaseModelError` when the base has none
    to be merged into; nothing large is read."""
    try:
        config = PeftConfig.from_pretrained(str(adapter))
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{adapter}: PEFT does not know this adapter: {error}") from error
    if config.is_prompt_learning:
        raise AdapterError(
            f"{adapter}: {config.peft_type.value} is no change of weights but something that the "
            "model reads before every input, so it cannot be merged. Export it with --adapter"
        )
    if read_config(base).get("quantization_config") is not None:
        raise BaseModelError(
            f"{base}: its own files are quantised; merging needs whole weights. Export with "
            "--adapter"
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """How a base's files keep its numbers."""

    numbers: int
    dtype: str
    """Of most of them, as safetensors or the model's configuration call it."""

    def default_dtype(self, base: Path) -> str:
        """In what a merged model is written if nobody says: a name of `DTYPES`.

        Raises `BaseModelError` when the base has none of them.
        """
        name = _STORED.get(self.dtype, self.dtype)
        if name not in DTYPES:
            raise BaseModelError(
                f"{base}: keeps its numbers as {name}. Say how to write them: --dtype bfloat16"
            )
        return name


def stored(base: Path) -> Stored:
    """Told by the headers of its files; no number is read."""
    numbers: Counter[str] = Counter()
    for file in base.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118, it is no dictionary
                part = weights.get_slice(name)
                numbers[part.get_dtype()] += math.prod(part.get_shape())
    if not numbers:
        config = read_config(base)
        return Stored(0, str(config.get("dtype") or config.get("torch_dtype") or "float32"))
    return Stored(numbers.total(), numbers.most_common(1)[0][0])


def merge(
    base: Path,
    adapter: Path,
    *,
    task: str,
    labels: Sequence[str],
    rows: Sequence[Sequence[int]],
    multi_label: bool = False,
    allow_pickle: bool = False,
    new_tokens: Sequence[str] = (),
) -> Merged:
    """A base with an adapter merged into it, computed and compared in float32.

    `rows` are token ids, for which base and adapter must give the same logits as what was merged.
    Raises `AdapterError` when they do not, or when there is no merge.
    """
    check_mergeable(adapter, base)
    loaded = load_base(
        base,
        task,
        torch.float32,
        "sdpa",
        labels=labels,
        multi_label=multi_label,
        allow_pickle=allow_pickle,
        new_tokens=new_tokens,
    ).model
    tied = bool(getattr(loaded.config, "tie_word_embeddings", False))
    try:
        adapted = PeftModel.from_pretrained(loaded, str(adapter)).eval()
        expected = _logits(adapted, rows)
        model = adapted.merge_and_unload(safe_merge=True)
    except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
        why = " ".join(str(error).split())[:300]
        raise AdapterError(f"{adapter}: cannot be merged into {base}: {why}") from error
    _as_the_base_was(model, base, tied=tied)
    return Merged(model, _difference(_logits(model, rows), expected, adapter))


@torch.no_grad()
def _logits(model: torch.nn.Module, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    return [model(input_ids=torch.tensor([list(row)])).logits for row in rows]


def _difference(
    found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], adapter: Path
) -> float:
    largest = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        difference = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1.0))
        if not difference <= _TOLERANCE:  # NaN is not either
            raise AdapterError(
                f"{adapter}: merged into the base it gives other logits, by up to {difference:.1e} "
                "of the largest; nothing is written. Export it with --adapter"
            )
        largest = max(largest, difference)
    return largest


def _as_the_base_was(model: PreTrainedModel, base: Path, *, tied: bool) -> None:
    """Training needs no cache of keys and values; generating does. A matrix that the base has at
    both ends, and PEFT twice, becomes one again if both are still equal."""
    model.config.use_cache = read_config(base).get("use_cache", True)
    head = model.get_output_embeddings()
    if tied and head is not None:
        words: Any = model.get_input_embeddings()
        if torch.equal(words.weight, head.weight):
            model.config.tie_word_embeddings = True
            model.tie_weights()


def write(merged: Merged, folder: Path, *, base: Path, task: str, dtype: str, shard: str) -> None:
    """Write a merged model as transformers opens it, and open what was written.

    The model is rounded to `dtype` in place and given up, so that memory holds it once. `shard` is
    the largest file, such as `5GB`. Raises `CheckpointError` when it does not read back as it was
    written, `AdapterError` when its numbers are too large for the dtype.
    """
    model: Any = merged.model
    model.to(dtype=DTYPES[dtype])
    _check_finite(model, dtype)
    try:
        model.save_pretrained(folder, max_shard_size=shard)
    except SafetensorError as error:  # which hides the OSError that it was
        raise OSError(str(error)) from error
    for file in folder.glob("*.safetensors"):
        file.chmod((folder / "config.json").stat().st_mode)  # safetensors lets nobody else read it
    if (base / _GENERATION).is_file():  # word for word, whatever this version makes of it
        shutil.copyfile(base / _GENERATION, folder / _GENERATION)
    written = _digests(model)
    model.to("meta")
    _check_read_back(folder, written, task)


def _check_finite(model: PreTrainedModel, dtype: str) -> None:
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise AdapterError(
                f"--dtype {dtype}: {name} has numbers that are too large for it. Take bfloat16"
            )


def _check_read_back(folder: Path, written: dict[str, str], task: str) -> None:
    model, info = model_class(task).from_pretrained(folder, dtype="auto", output_loading_info=True)
    absent = sorted(info["missing_keys"])
    if absent:
        raise CheckpointError(f"{folder}: lacks what was to be written: {', '.join(absent[:3])}")
    found = _digests(model)
    for name in sorted(written.keys() | found.keys()):
        if written.get(name) != found.get(name):
            raise CheckpointError(f"{folder}: {name} does not read back as it was written")


def _digests(model: PreTrainedModel) -> dict[str, str]:
    """sha256 of the values of each tensor, by name: as float32, in which transformers keeps some
    whatever their file has."""
    found = {}
    for name, tensor in model.state_dict().items():
        wide = tensor.float() if tensor.is_floating_point() else tensor
        found[name] = hashlib.sha256(wide.contiguous().numpy()).hexdigest()
    return found
