"""What an adapter trains on a base: the shapes that PEFT would make, without PEFT.

Follows `adapters.attach`: a module is adapted when its name is a target or ends with one, in the
layers asked for. tests/launcher/plan compares the two.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from launcher.plan.adapter_tensors import PREFIX, Adapted, float32, tensors_of
from launcher.plan.base_shape import BaseShape, Tensor
from launcher.plan.stacks import stack_tensors
from launcher.plan.virtual_tokens import saved_tokens, virtual_tokens
from recipes.adapter import (
    REGEX,
    Adalora,
    Adapter,
    Full,
    InPlace,
    Layered,
    LnTuning,
    Lora,
    Targeted,
    Unfreeze,
    Vera,
    VirtualTokens,
)
from recipes.errors import AdapterError

# How PEFT finds the number of a module's layer (peft/tuners/tuners_utils.py).
_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")
_NEW_HEADS = ("classifier", "score")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterShape:
    adapted: tuple[Adapted, ...]
    rank: int
    trained: tuple[Tensor, ...]
    """Every parameter that is trained; one of the base itself goes by its name there."""
    saved: tuple[Tensor, ...]
    """Every tensor of the adapter as it is saved."""
    text_bytes: int = 0
    """Of a tokenizer that is saved with it."""
    rank_kinds: int = 0
    """Averages that are kept of each trained parameter to move ranks by."""
    in_place: bool = False
    """Whether what is trained are parameters of the base itself."""

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.trained)

    @property
    def first_layer(self) -> int:
        """Below it nothing learns, and nothing is kept for the backward pass."""
        numbers = [module.layer for module in self.adapted if module.layer is not None]
        return min(numbers, default=0)

    def adapts(self, layer: int, names: Collection[str]) -> bool:
        """Whether a module of a layer, by the last part of its name, is adapted."""
        return any(
            module.layer == layer and module.name.rpartition(".")[2] in names
            for module in self.adapted
        )


def adapter_shape(
    base: BaseShape, adapter: Adapter, new_tokens: Sequence[str] = ()
) -> AdapterShape:
    """The adapter of a recipe on a base. Raises `AdapterError` as `adapters.attach` would."""
    if isinstance(adapter, VirtualTokens):
        return AdapterShape(
            adapted=(),
            rank=0,
            trained=virtual_tokens(base.widths, adapter),
            saved=saved_tokens(base.widths, adapter),
        )
    if isinstance(adapter, Full):
        adapted = tuple(_modules(base).values())
        return _in_place(base, adapted, (*base.tensors, *base.head))
    adapted = _adapted(base, adapter)
    if isinstance(adapter, InPlace):
        names = {module.name for module in adapted}
        own = [t for t in base.tensors if t.name.rpartition(".")[0] in names]
        own += [t for t in _saved(base, adapter.modules_to_save) if t not in own]
        return _in_place(base, adapted, own)
    trained = [tensor for module in adapted for tensor in tensors_of(module, adapter)]
    trained += [_copied(tensor) for tensor in _saved(base, adapter.modules_to_save)]
    if isinstance(adapter, Lora):
        trained += stack_tensors(base, adapter.target_parameters, adapter.r)
        trained += _token_rows(base, adapter, new_tokens)
    rank = adapter.r if isinstance(adapter, Lora | Vera | Adalora) else 0
    saved = [*trained]
    if isinstance(adapter, Lora) and adapter.takes_from_base:
        # What it began with is saved too, to be taken away.
        saved += [t for t in trained if ".lora_A." in t.name or ".lora_B." in t.name]
    return AdapterShape(
        adapted=adapted,
        rank=rank,
        trained=tuple(trained),
        saved=tuple(saved),
        text_bytes=base.tokenizer_bytes if new_tokens else 0,
        rank_kinds=2 if isinstance(adapter, Adalora) else 0,
    )


def _token_rows(base: BaseShape, adapter: Lora, new_tokens: Sequence[str]) -> list[Tensor]:
    """Embeddings of tokens, and of new ones what the head has for them if it is not tied."""
    name = f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta.default"
    counts = [len({*adapter.train_tokens, *new_tokens})]
    if base.tied is None:
        counts.append(len(new_tokens))
    return [float32(name, count, base.widths.hidden) for count in counts if count]


def _adapted(base: BaseShape, adapter: Targeted) -> tuple[Adapted, ...]:
    """The modules that targets mean, in the layers asked for."""
    modules = _modules(base)
    names = _names(modules, adapter.targets)
    last = adapter.last_layers if isinstance(adapter, Layered) else None
    first = _first_layer(base, last)
    adapted = tuple(modules[name] for name in names if _is_in_layers(modules[name], first))
    if not adapted:
        raise AdapterError(
            f"adapter.targets = {', '.join(adapter.targets)}: matches no module in the last {last} "
            "layers of the base"
        )
    if not isinstance(adapter, Unfreeze):
        wrong = [m.name for m in adapted if m.is_norm != isinstance(adapter, LnTuning)]
        if wrong:
            raise AdapterError(
                f"adapter.targets: adapter.kind = {adapter.kind} cannot adapt {wrong[0]}"
            )
    return adapted


def _in_place(
    base: BaseShape, adapted: tuple[Adapted, ...], trained: Sequence[Tensor]
) -> AdapterShape:
    own = tuple(float32(tensor.name, *tensor.shape) for tensor in trained)
    # A tied embedding is saved for both of the modules in which it stands.
    tied = [t for t in own if t.name == base.tied]
    saved = tuple(_replacing(tensor) for tensor in (*own, *tied))
    return AdapterShape(adapted=adapted, rank=0, trained=own, saved=saved, in_place=True)


def _replacing(tensor: Tensor) -> Tensor:
    module, _, own = tensor.name.rpartition(".")
    return float32(f"{PREFIX}{module}.ln_tuning_layers.{own}", *tensor.shape)


def _modules(base: BaseShape) -> dict[str, Adapted]:
    """Every module that some kind can adapt, by name."""
    found = [
        Adapted(name=name, layer=_layer(name), inputs=inputs, outputs=outputs)
        for name, (outputs, inputs) in base.linear.items()
    ]
    found += [
        Adapted(name=name, layer=_layer(name), inputs=width, outputs=width, is_norm=True)
        for name, width in base.norms.items()
    ]
    return {module.name: module for module in found}


def _copied(tensor: Tensor) -> Tensor:
    module, _, own = tensor.name.rpartition(".")
    return float32(f"{PREFIX}{module}.modules_to_save.default.{own}", *tensor.shape)


def _saved(base: BaseShape, wanted: Sequence[str]) -> list[Tensor]:
    """Parameters of modules that are trained in full, a new head always among them."""
    names = [*wanted, *(_NEW_HEADS if base.head else ())]
    found = []
    for tensor in (*base.tensors, *base.head):
        # Every module above the parameter, by its full name, as PEFT compares ends of names.
        parts = tensor.name.split(".")[:-1]
        modules = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        if any(module.endswith(name) for module in modules for name in names):
            found.append(tensor)
    for name in wanted:
        if not any(name in tensor.name.split(".") or name in tensor.name for tensor in found):
            raise AdapterError(f"adapter.modules_to_save = {name}: matches no module of the base")
    return found


def _names(modules: Mapping[str, Adapted], wanted: Sequence[str]) -> list[str]:
    """Full names of the modules that targets mean."""
    for alone, is_norm in (("all-linear", False), ("all-norms", True)):
        if list(wanted) == [alone]:
            return [name for name, module in modules.items() if module.is_norm == is_norm]
    if wanted[0].startswith(REGEX):
        pattern = re.compile(wanted[0].removeprefix(REGEX))
        # In the model of a task everything may stand below one name more than in some files.
        found = [n for n in modules if pattern.fullmatch(n) or pattern.fullmatch(f"model.{n}")]
        missing = [] if found else list(wanted)
    else:
        found = [name for name in modules if any(_matches(name, target) for target in wanted)]
        missing = [t for t in wanted if not any(_matches(name, t) for name in modules)]
    if missing:
        known = sorted({name.rpartition(".")[2] for name in modules})
        near = [n for name in missing for n in difflib.get_close_matches(name, known, cutoff=0.4)]
        hint = f" Did you mean {', '.join(dict.fromkeys(near))}?" if near else ""
        raise AdapterError(
            f"adapter.targets = {', '.join(missing)}: matches no module of the base.{hint} "
            f"It has: {', '.join(known[:30])}"
        )
    return found


def _first_layer(base: BaseShape, last: int | None) -> int | None:
    if last is None:
        return None
    if last > base.widths.layers:
        raise AdapterError(
            f"adapter.last_layers = {last}: the base has {base.widths.layers or 'no numbered'} "
            "layers"
        )
    return base.widths.layers - last


def _layer(name: str) -> int | None:
    # In the model everything stands below one name more than in some files.
    found = _LAYER.match(f"base.{name}")
    return int(found[1]) if found else None


def _is_in_layers(module: Adapted, first: int | None) -> bool:
    return first is None or (module.layer is not None and module.layer >= first)


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
