"""The modules of a base that an adapter changes, by name, and errors that tell near names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from adapters.sharded import shape_of
from recipes.adapter import REGEX
from recipes.errors import AdapterError

_HEADS = ("classifier", "score")
# How PEFT finds the number of a module's layer (peft/tuners/tuners_utils.py).
_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")


def targets(model: nn.Module, wanted: Sequence[str]) -> list[str] | str:
    """What PEFT is to adapt: names, sorted, with `all-linear` and `all-norms` spelt out, or one
    pattern of full names."""
    if list(wanted) == ["all-norms"]:
        return _last_parts(norm_names(model))
    linear = linear_names(model)
    if list(wanted) == ["all-linear"]:
        return _last_parts(linear)
    # Norms are named only by who wants them; what kind cannot adapt them, PEFT says.
    names = [*linear, *norm_names(model)]
    if wanted[0].startswith(REGEX):
        pattern = wanted[0].removeprefix(REGEX)
        if not any(re.fullmatch(pattern, name) for name in names):
            raise AdapterError(_unmatched("adapter.targets", wanted, names))
        return pattern
    missing = [name for name in wanted if not matches(name, names)]
    if missing:
        raise AdapterError(_unmatched("adapter.targets", missing, names))
    return sorted(wanted)


def _last_parts(names: Iterable[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in names})


def linear_names(model: nn.Module) -> list[str]:
    """Full names of the linear modules, without the output head."""
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and not is_head(name)
    ]


def norm_names(model: nn.Module) -> list[str]:
    """Full names of the normalisations: modules whose weight is a row."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(weight := getattr(module, "weight", None), nn.Parameter)
        and len(getattr(weight, "ds_shape", weight.shape)) == 1  # sharded ones lie flat
    ]


def matched(wanted: list[str] | str, names: Iterable[str]) -> list[str]:
    """Of full names those that what `targets` gives means, as PEFT compares them."""
    if isinstance(wanted, str):
        return [name for name in names if re.fullmatch(wanted, name)]
    return [name for name in names if any(matches(target, [name]) for target in wanted)]


def check_patterns(
    model: nn.Module, wanted: list[str] | str, patterns: Iterable[str], path: str
) -> None:
    """Raises `AdapterError` when a pattern is of no module that `wanted`, from `targets`, means.

    PEFT compares it with the end of full names (`get_pattern_key`)."""
    adapted = matched(wanted, linear_names(model))
    for pattern in patterns:
        if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in adapted):
            raise AdapterError(_unmatched(path, [pattern], adapted))


def is_tied(model: PreTrainedModel) -> bool:
    """Whether a base's embedding is its output head too."""
    config = model.config.get_text_config()
    return bool(getattr(config, "tie_word_embeddings", False))


def is_head(name: str) -> bool:
    """Whether a module is the head of a classification, or a part of it."""
    return name.split(".")[0] in _HEADS


def is_below(name: str, wanted: Iterable[str]) -> bool:
    """Whether a module is one of those that names mean, or a part of one."""
    parts = name.split(".")
    above = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return any(matches(target, above) for target in wanted)


def is_in_layers(name: str, layers: Sequence[int] | None) -> bool:
    """Whether a module lies in one of these layers; None is all."""
    if layers is None:
        return True
    found = _LAYER.match(name)
    return found is not None and int(found[1]) in layers


def parameters(model: nn.Module, wanted: Sequence[str]) -> list[str] | None:
    """Stacks of matrices that are adapted as they are, or None."""
    names = [name for name, parameter in model.named_parameters() if len(shape_of(parameter)) == 3]
    missing = [name for name in wanted if not matches(name, names)]
    if missing:
        raise AdapterError(_unmatched("adapter.target_parameters", missing, names))
    return list(wanted) or None


def to_save(model: nn.Module, wanted: Sequence[str]) -> list[str] | None:
    """Modules to train in full, or None."""
    names = [name for name, _ in model.named_modules() if name]
    missing = [name for name in wanted if not matches(name, names)]
    if missing:
        raise AdapterError(_unmatched("adapter.modules_to_save", missing, names))
    return list(wanted) or None


def last_layers(model: PreTrainedModel, last: int | None) -> list[int] | None:
    """Numbers of that many layers, counted from the output; None is all."""
    if last is None:
        return None
    count = getattr(model.config, "num_hidden_layers", None)
    if count is None or last > count:
        raise AdapterError(
            f"adapter.last_layers = {last}: the base has {count if count else 'no numbered'} layers"
        )
    return list(range(count - last, count))


def matches(wanted: str, names: Iterable[str]) -> bool:
    """Whether a name, or its end, is one of these."""
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
