"""Loading the frozen base."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from adapters.base_files import is_pickled
from adapters.classification import label_options
from adapters.host_memory import freed_at_once
from adapters.quantization import Quantization, keep_as_stored
from adapters.tokenizer import load_tokenizer, pad_token_id
from recipes.errors import BaseModelError

_MODEL_OF_TASK = {
    "causal_lm": AutoModelForCausalLM,
    "sequence_classification": AutoModelForSequenceClassification,
}


def model_class(task: str) -> Any:
    """The class of transformers by which a model for a task is opened."""
    return _MODEL_OF_TASK[task]


def empty_base(folder: Path, *, task: str) -> PreTrainedModel:
    """The base's modules with whatever values the current device gives: shapes on `meta`."""
    try:
        config = AutoConfig.from_pretrained(folder)
        return _MODEL_OF_TASK[task].from_config(config)  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelError(f"{folder}: cannot be loaded for task = {task}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedBase:
    """The frozen model."""

    model: PreTrainedModel
    new_parameters: tuple[str, ...]
    """Names of those that its folder does not hold: a new head."""
    folder: Path
    new_tokens: tuple[str, ...] = ()
    """Added to its tokenizer."""


def freeze(model: PreTrainedModel, *, gradient_checkpointing: bool) -> None:
    """Make a model a base: no parameter learns, and nothing is kept for generation."""
    model.requires_grad_(False)
    model.config.use_cache = False
    if gradient_checkpointing:
        model.activation_checkpointing_enable()
        # The first adapter would otherwise see an input that no gradient belongs to.
        model.enable_input_require_grads()


def load_base(
    folder: Path,
    task: str,
    dtype: torch.dtype,
    attention: str,
    *,
    labels: Sequence[str] = (),
    multi_label: bool = False,
    gradient_checkpointing: bool = False,
    quantization: Quantization | None = None,
    allow_pickle: bool = False,
    new_tokens: Sequence[str] = (),
) -> LoadedBase:
    """The base with every parameter frozen, in evaluation mode, on the CPU; one that is quantised
    on the device where it was.

    While an `HfDeepSpeedConfig` of stage 3 is alive its parameters are sharded as they are loaded.
    Raises `BaseModelError` when the folder does not hold a model for the task, or only as pickles
    that are not allowed.
    """
    options: dict[str, Any] = {
        "dtype": dtype,
        "attn_implementation": attention,
        "use_safetensors": not (allow_pickle and is_pickled(folder)),
        "weights_only": True,  # of a pickle: tensors, and nothing that runs
    }
    if quantization is not None:
        options |= quantization.options(dtype)
    if task == "sequence_classification":
        options |= label_options(labels, multi_label=multi_label)
    try:
        with freed_at_once():
            model, info = _MODEL_OF_TASK[task].from_pretrained(
                folder, output_loading_info=True, **options
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BaseModelError(f"{folder}: cannot be loaded for task = {task}: {error}") from error
    except pickle.UnpicklingError as error:  # torch's text says how to run it all the same
        raise BaseModelError(
            f"{folder}: a pickle of its weights is torn, or holds other things than tensors. "
            "Nothing in it was run; take the base from somebody else"
        ) from error
    if quantization is not None:
        keep_as_stored(model)
    if new_tokens:
        _make_room(model, folder, new_tokens)
    freeze(model, gradient_checkpointing=gradient_checkpointing)
    if task == "sequence_classification" and model.config.pad_token_id is None:
        # Decoders classify by the last token that is no padding, and must know which that is.
        model.config.pad_token_id = pad_token_id(load_tokenizer(folder))
    return LoadedBase(
        model=model,
        new_parameters=tuple(sorted(info["missing_keys"])),
        folder=folder,
        new_tokens=tuple(new_tokens),
    )


def _make_room(model: PreTrainedModel, folder: Path, new_tokens: Sequence[str]) -> None:
    """Rows for new tokens in the embedding and the output head, as the mean of those before."""
    tokenizer = load_tokenizer(folder, new_tokens)
    words: Any = model.get_input_embeddings()
    if len(tokenizer) > words.num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ids = tokenizer.convert_tokens_to_ids(list(new_tokens))
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if isinstance(module, nn.Module):
            weight: torch.Tensor = module.weight.data  # type: ignore[assignment]
            weight[ids] = weight[: min(ids)].float().mean(dim=0).to(weight.dtype)
