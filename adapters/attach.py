"""Attaching a PEFT adapter to a frozen base, and naming what cannot be attached."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from adapters.base import LoadedBase, empty_base, freeze
from recipes.adapter import Adapter
from recipes.errors import AdapterError

_TASK_TYPE = {
    "causal_lm": TaskType.CAUSAL_LM,
    "sequence_classification": TaskType.SEQ_CLS,
}
_HEADS = ("classifier", "score")


def attach(base: LoadedBase, adapter: Adapter, *, task: str, seed: int) -> PeftModel:
    """The base with a new adapter, whose values depend on the seed alone.

    Adapter parameters are float32 whatever the base's dtype: they are the optimizer's masters.
    Raises `AdapterError` when a target or a module to save matches nothing, with near names.
    """
    config = _CONFIGS[adapter.kind](base.model, adapter, _TASK_TYPE[task])
    torch.manual_seed(seed)
    model = _adapted(base.model, config)
    _begin_new_head(model, base, seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def trained_parameters(folder: Path, adapter: Adapter, *, task: str) -> int:
    """How many numbers an adapter trains on a base, found out without reading a weight.

    Raises `AdapterError` as `attach` would, or `BaseModelError`.
    """
    with torch.device("meta"):
        model = empty_base(folder, task=task)
        freeze(model, gradient_checkpointing=False)
        config = _CONFIGS[adapter.kind](model, adapter, _TASK_TYPE[task])
        adapted = _adapted(model, config)
    return sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def _adapted(model: PreTrainedModel, config: PeftConfig) -> PeftModel:
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise AdapterError(f"adapter: does not fit the base: {error}") from error


def _lora(model: PreTrainedModel, adapter: Adapter, task_type: TaskType) -> PeftConfig:
    return LoraConfig(
        task_type=task_type,
        r=adapter.r,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]
        lora_dropout=adapter.dropout,
        target_modules=targets(model, adapter.targets),
        layers_to_transform=_layers(model, adapter.last_layers),
        modules_to_save=_modules_to_save(model, adapter.modules_to_save),
        use_rslora=adapter.rslora,
        use_dora=adapter.dora,
    )


_CONFIGS: dict[str, Callable[[PreTrainedModel, Adapter, TaskType], PeftConfig]] = {"lora": _lora}


def _begin_new_head(model: nn.Module, base: LoadedBase, seed: int) -> None:
    """First values of a head the base does not hold, the same under every ZeRO stage.

    As BERT begins its own: weights normal with `initializer_range`, biases zero (arXiv:1810.04805).
    """
    spread = getattr(base.model.config, "initializer_range", 0.02)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or ".modules_to_save.default." not in name:
            continue
        plain = name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
        if plain not in base.new_parameters:
            continue
        values = torch.zeros(parameter.shape)
        if values.ndim > 1:
            values.normal_(0.0, spread, generator=generator)
        parameter.data.copy_(values)


def targets(model: nn.Module, wanted: Sequence[str]) -> list[str]:
    """Names of the modules to adapt, `all-linear` spelt out, sorted."""
    linear = linear_names(model)
    if list(wanted) == ["all-linear"]:
        return sorted({name.rpartition(".")[2] for name in linear})
    missing = [name for name in wanted if not _matches(name, linear)]
    if missing:
        raise AdapterError(_unmatched("adapter.targets", missing, linear))
    return sorted(wanted)


def linear_names(model: nn.Module) -> list[str]:
    """Full names of the linear modules, without the output head."""
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module is not head
        and name.split(".")[0] not in _HEADS
    ]


def _modules_to_save(model: nn.Module, wanted: Sequence[str]) -> list[str] | None:
    names = [name for name, _ in model.named_modules() if name]
    missing = [name for name in wanted if not _matches(name, names)]
    if missing:
        raise AdapterError(_unmatched("adapter.modules_to_save", missing, names))
    return list(wanted) or None


def _layers(model: PreTrainedModel, last: int | None) -> list[int] | None:
    if last is None:
        return None
    count = getattr(model.config, "num_hidden_layers", None)
    if count is None or last > count:
        raise AdapterError(
            f"adapter.last_layers = {last}: the base has {count if count else 'no numbered'} layers"
        )
    return list(range(count - last, count))


def _matches(wanted: str, names: Iterable[str]) -> bool:
    return any(name == wanted or name.endswith(f".{wanted}") for name in names)


def _unmatched(path: str, missing: Sequence[str], names: Sequence[str]) -> str:
    known = sorted({name.rpartition(".")[2] for name in names})
    known = [name for name in known if not name.isdigit()]
    near = [near for name in missing for near in difflib.get_close_matches(name, known, cutoff=0.4)]
    hint = f"Did you mean {', '.join(dict.fromkeys(near))}?" if near else ""
    return (
        f"{path} = {', '.join(missing)}: matches no module of the base. {hint} "
        f"It has: {', '.join(known[:30])}"
    )
