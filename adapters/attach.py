"""Attaching an adapter to a frozen base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.boft.layer import BOFTLayer
from torch import nn
from transformers import PreTrainedModel

from adapters.adalora import with_ranks
from adapters.attached import PREFIX, Attached, Tensors, trainable
from adapters.base import LoadedBase, empty_base, freeze
from adapters.from_base import beside_base
from adapters.in_place import attach_in_place
from adapters.new_head import begin_new_head
from adapters.peft_configs import PeftKind, peft_config
from adapters.prompts import begin_prompt, saved_prompt
from adapters.tokenizer import load_tokenizer
from recipes.adapter import Adalora, Adapter, InPlace, Lora, OtherPeft, PromptTuning, VirtualTokens
from recipes.errors import AdapterError, CheckpointError

_MANY_STEPS = 10**9


def attach(base: LoadedBase, adapter: Adapter, *, task: str, seed: int, steps: int) -> Attached:
    """The base with a new adapter, whose values depend on the seed alone. Collective under stage 3.

    `steps` are those of the whole run, over which AdaLoRA lowers its ranks.
    Adapter parameters are float32 whatever the base's dtype: they are the optimizer's masters.
    Raises `AdapterError` when a target or a module to save matches nothing, with near names.
    """
    if isinstance(adapter, InPlace):
        return attach_in_place(base, adapter, task=task, seed=seed)
    attached = _attach(base, adapter, task=task, seed=seed, steps=steps)
    if not base.new_tokens:
        return attached
    return replace(attached, tokenizer=load_tokenizer(base.folder, base.new_tokens))


def _attach(base: LoadedBase, adapter: PeftKind, *, task: str, seed: int, steps: int) -> Attached:
    config = peft_config(
        base.model,
        adapter,
        task,
        steps=steps,
        folder=base.folder,
        new_tokens=base.new_tokens,
    )
    torch.manual_seed(seed)
    model = _adapted(base.model, config)
    if isinstance(adapter, PromptTuning):
        begin_prompt(model, base, adapter, seed)
    begin_new_head(base, _heads(model), seed)
    for parameter in trainable(model).values():
        parameter.data = parameter.data.float()
    if isinstance(adapter, VirtualTokens):
        return Attached(model=model, config=config, saved=partial(saved_prompt, config))
    if isinstance(adapter, Adalora):
        return with_ranks(model, config, adapter.orthogonality)
    saved = partial(_saved, model)
    if isinstance(adapter, Lora) and adapter.takes_from_base:
        return beside_base(model, config, saved)
    if isinstance(adapter, OtherPeft):
        _check_saved(adapter, model, saved)
    return Attached(model=model, config=config, saved=saved)


def _check_saved(adapter: OtherPeft, model: PeftModel, saved: Callable[[Tensors], Tensors]) -> None:
    try:
        saved({name: parameter.data for name, parameter in trainable(model).items()})
    except (KeyError, ValueError) as error:
        raise AdapterError(
            f"adapter.method = {adapter.method}: PEFT saves more of it than what is trained, which "
            f"is all that a checkpoint holds: {error}"
        ) from error


def _saved(model: PeftModel, master: Tensors) -> Tensors:
    tensors: Tensors = get_peft_model_state_dict(
        model, state_dict=master, save_embedding_layers=False
    )
    if sum(t.numel() for t in tensors.values()) != sum(t.numel() for t in master.values()):
        raise CheckpointError("adapter: PEFT would not save all of what was trained")
    return tensors


def _heads(model: PeftModel) -> Iterator[tuple[str, nn.Parameter]]:
    """Trained copies of modules of the base, by the names that those have there."""
    mark = ".modules_to_save.default"
    for name, parameter in trainable(model).items():
        if mark in name:
            yield name.removeprefix(PREFIX).replace(mark, ""), parameter


def trained_parameters(
    folder: Path, adapter: Adapter, *, task: str, new_tokens: Sequence[str] = ()
) -> int | None:
    """How many numbers an adapter trains on a base, found out without reading a weight; None of a
    method of PEFT that computes with the weights before it can say.

    Raises `AdapterError` as `attach` would, or `BaseModelError`.
    """
    with torch.device("meta"), _empty_permutations():
        model = empty_base(folder, task=task)
        freeze(model, gradient_checkpointing=False)
        if isinstance(adapter, InPlace):
            base = LoadedBase(model=model, new_parameters=(), folder=folder)
            adapted = attach_in_place(base, adapter, task=task, seed=0).model
        else:
            if isinstance(adapter, Lora):  # first values from a base have no other shapes
                adapter = replace(adapter, initialization="kaiming")
            config = peft_config(
                model, adapter, task, steps=_MANY_STEPS, folder=folder, new_tokens=new_tokens
            )
            try:
                adapted = _adapted(model, config)
            except NotImplementedError:  # what torch says of numbers that are asked of `meta`
                return None
    return sum(p.numel() for p in trainable(adapted).values())


@contextmanager
def _empty_permutations() -> Iterator[None]:
    """PEFT writes each permutation of a BOFT number by number, which `meta` does not take."""
    real = BOFTLayer.perm2mat
    BOFTLayer.perm2mat = _empty_square  # type: ignore[method-assign]
    try:
        yield
    finally:
        BOFTLayer.perm2mat = real  # type: ignore[method-assign]


def _empty_square(_: BOFTLayer, indices: torch.Tensor) -> torch.Tensor:
    return torch.empty(len(indices), len(indices))


def _adapted(model: PreTrainedModel, config: PeftConfig) -> PeftModel:
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise AdapterError(f"adapter: does not fit the base: {error}") from error
