"""What an adapter trains on a base: the shapes that PEFT would make, without PEFT.

Follows `adapters.attach`: a module is adapted when its name is a target or ends with one, in the
layers asked for. tests/launcher/plan compares the two.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from launcher.plan.base_shape import BaseShape, Tensor
from recipes.adapter import Adapter
from recipes.errors import AdapterError

# How PEFT finds the number of a module's layer (peft/tuners/tuners_utils.py).
_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")
_NEW_HEADS = ("classifier", "score")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapted:
    """One linear module with the adapter's matrices around it."""

    name: str
    layer: int | None
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterShape:
    adapted: tuple[Adapted, ...]
    rank: int
    trained: tuple[Tensor, ...]
    """Every parameter that is trained."""

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


def adapter_shape(base: BaseShape, adapter: Adapter) -> AdapterShape:
    """The adapter of a recipe on a base. Raises `AdapterError` as `adapters.attach` would."""
    linear = base.linear
    wanted = _targets(list(linear), adapter.targets)
    first = _first_layer(base, adapter.last_layers)
    adapted = tuple(
        Adapted(name=name, layer=_layer(name), inputs=shape[1], outputs=shape[0])
        for name, shape in linear.items()
        if _matches_any(name, wanted) and _is_in_layers(name, first)
    )
    if not adapted:
        raise AdapterError(
            f"adapter.targets = {', '.join(adapter.targets)}: matches no module in the last "
            f"{adapter.last_layers} layers of the base"
        )
    trained = [tensor for module in adapted for tensor in _lora(module, adapter)]
    trained += _saved(base, adapter.modules_to_save)
    return AdapterShape(adapted=adapted, rank=adapter.r, trained=tuple(trained))


def _lora(module: Adapted, adapter: Adapter) -> list[Tensor]:
    """A and B of LoRA (arXiv:2106.09685), and DoRA's magnitudes (arXiv:2402.09353)."""
    made = [
        _float32(f"{module.name}.lora_A", adapter.r, module.inputs),
        _float32(f"{module.name}.lora_B", module.outputs, adapter.r),
    ]
    if adapter.dora:
        made.append(_float32(f"{module.name}.lora_magnitude_vector", module.outputs))
    return made


def _saved(base: BaseShape, wanted: Sequence[str]) -> list[Tensor]:
    """Copies of modules that are trained in full, a new head always among them."""
    names = [*wanted, *(_NEW_HEADS if base.head else ())]
    found = []
    for tensor in (*base.tensors, *base.head):
        # Every module above the parameter, by its full name, as PEFT compares ends of names.
        parts = tensor.name.split(".")[:-1]
        modules = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        if any(module.endswith(name) for module in modules for name in names):
            found.append(_float32(f"{tensor.name}.saved", *tensor.shape))
    for name in wanted:
        if not any(name in tensor.name.split(".") or name in tensor.name for tensor in found):
            raise AdapterError(f"adapter.modules_to_save = {name}: matches no module of the base")
    return found


def _targets(linear: Sequence[str], wanted: Sequence[str]) -> list[str]:
    if list(wanted) == ["all-linear"]:
        return sorted({name.rpartition(".")[2] for name in linear})
    missing = [name for name in wanted if not any(_matches(module, name) for module in linear)]
    if missing:
        known = sorted({name.rpartition(".")[2] for name in linear})
        near = [n for name in missing for n in difflib.get_close_matches(name, known, cutoff=0.4)]
        hint = f" Did you mean {', '.join(dict.fromkeys(near))}?" if near else ""
        raise AdapterError(
            f"adapter.targets = {', '.join(missing)}: matches no module of the base.{hint} "
            f"It has: {', '.join(known[:30])}"
        )
    return list(wanted)


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


def _is_in_layers(name: str, first: int | None) -> bool:
    if first is None:
        return True
    layer = _layer(name)
    return layer is not None and layer >= first


def _matches_any(name: str, wanted: Sequence[str]) -> bool:
    return any(_matches(name, target) for target in wanted)


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _float32(name: str, *shape: int) -> Tensor:
    tensor = Tensor(name=name, shape=shape, stored_bytes=0)
    return Tensor(name=name, shape=shape, stored_bytes=4 * tensor.elements)
