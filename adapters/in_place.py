"""Adapters that are parameters of the base itself: no second copy of them is kept in memory.

They are saved as PEFT's LN_TUNING, which replaces whole modules by copies, whatever they are.
"""

from __future__ import annotations

from functools import partial

from peft import LNTuningConfig
from torch import nn
from transformers import PreTrainedModel

from adapters import modules
from adapters.attached import PREFIX, Attached, Tensors, trainable
from adapters.base import LoadedBase
from adapters.new_head import begin_new_head
from adapters.peft_configs import TASK_TYPE
from recipes.adapter import Full, InPlace, LnTuning, Unfreeze
from recipes.errors import AdapterError


def attach_in_place(base: LoadedBase, adapter: InPlace, *, task: str, seed: int) -> Attached:
    """The base itself, some of its parameters trained.

    They become float32, the optimizer's masters, unless stage 3 has sharded them: then DeepSpeed
    keeps masters of its own. Raises `AdapterError` when a target matches nothing, or is quantised.
    """
    model = base.model
    for name in _chosen(model, adapter):
        for parameter in model.get_submodule(name).parameters(recurse=False):
            if not parameter.is_floating_point() or hasattr(parameter, "quant_state"):
                raise AdapterError(
                    f"adapter.targets: {name} is quantised, and cannot be trained itself. Set "
                    "base.quantization: none, or name other modules"
                )
            parameter.requires_grad_(True)
            if not hasattr(parameter, "ds_shape"):
                parameter.data = parameter.data.float()
    begin_new_head(base, trainable(model).items(), seed)
    # A tied matrix stands in two modules, and PEFT has to replace both. Heads it saves by itself.
    trained = {id(parameter) for parameter in trainable(model).values()}
    copied = [
        name
        for name, module in model.named_modules()
        if any(id(parameter) in trained for parameter in module.parameters(recurse=False))
        and not modules.is_head(name)
    ]
    config = LNTuningConfig(task_type=TASK_TYPE[task], target_modules=copied)
    return Attached(model=model, config=config, saved=partial(_saved, _keys(model, set(copied))))


def _chosen(model: PreTrainedModel, adapter: InPlace) -> list[str]:
    """Modules that are trained, by full name, each with parameters of its own."""
    having = [
        name
        for name, module in model.named_modules()
        if name and next(iter(module.parameters(recurse=False)), None) is not None
    ]
    if isinstance(adapter, Full):
        return having
    wanted = _matched(model, adapter)
    if isinstance(adapter, Unfreeze):
        layers = modules.last_layers(model, adapter.last_layers)
        wanted = [name for name in wanted if modules.is_in_layers(name, layers)]
    if not wanted:
        raise AdapterError(
            f"adapter.targets = {', '.join(adapter.targets)}: matches no module in the layers "
            "asked for"
        )
    saved = modules.to_save(model, adapter.modules_to_save) or []
    wanted += [name for name in having if modules.is_head(name) or modules.is_below(name, saved)]
    return list(dict.fromkeys(wanted))


def _matched(model: PreTrainedModel, adapter: LnTuning | Unfreeze) -> list[str]:
    """Full names of the modules that the targets mean."""
    known = modules.norm_names(model)
    if isinstance(adapter, Unfreeze):
        known = [*modules.linear_names(model), *known]
    return modules.matched(modules.targets(model, adapter.targets), known)


def _keys(model: nn.Module, copied: set[str]) -> list[tuple[str, str]]:
    """The name of each trained parameter, and the key PEFT knows it by; a tied one has several."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        (first[id(parameter)], _key(name, copied))
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.requires_grad
    ]


def _key(name: str, copied: set[str]) -> str:
    module, _, own = name.rpartition(".")
    return f"{PREFIX}{module}.{'ln_tuning_layers.' if module in copied else ''}{own}"


def _saved(keys: list[tuple[str, str]], master: Tensors) -> Tensors:
    # Copies: a file of safetensors holds no tensor twice.
    return {key: master[name].clone() for name, key in keys}
