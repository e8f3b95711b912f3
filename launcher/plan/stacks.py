"""Stacks of matrices, such as those of a mixture's experts, as a model has them in memory.

Files hold them as a stack, or each expert's matrices apart; transformers then joins gate and up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from launcher.plan.adapter_tensors import PREFIX, float32
from launcher.plan.base_shape import BaseShape, Tensor
from recipes.errors import AdapterError

_APART = re.compile(r"(.*\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj|w1|w2|w3)\.weight$")
_JOINED = {
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "down_proj": "down_proj",
    "w1": "gate_up_proj",
    "w3": "gate_up_proj",
    "w2": "down_proj",
}


def stack_tensors(base: BaseShape, wanted: Sequence[str], rank: int) -> list[Tensor]:
    """What LoRA trains on stacks, by the names or ends of names of these: two matrices for each of
    a stack. Raises `AdapterError` when the base has no such stack."""
    stacks = _stacks(base)
    made = []
    for target in wanted:
        found = [name for name in stacks if name == target or name.endswith(f".{target}")]
        if not found:
            known = sorted({name.rpartition(".")[2] for name in stacks})
            raise AdapterError(
                f"adapter.target_parameters = {target}: matches no parameter of the base. "
                f"It has: {', '.join(known) or 'no stack of matrices'}"
            )
        for name in found:
            number, outputs, inputs = stacks[name]
            made.append(float32(f"{PREFIX}{name}.lora_A.default.weight", rank * number, inputs))
            made.append(float32(f"{PREFIX}{name}.lora_B.default.weight", outputs, rank * number))
    return made


def _stacks(base: BaseShape) -> dict[str, tuple[int, int, int]]:
    """Their shapes, by name."""
    found = {
        t.name: (t.shape[0], t.shape[1], t.shape[2]) for t in base.tensors if len(t.shape) == 3
    }
    rows: dict[str, int] = {}
    inputs: dict[str, int] = {}
    experts: dict[str, set[str]] = {}
    for tensor in base.tensors:
        if match := _APART.match(tensor.name):
            name = f"{match[1]}.{_JOINED[match[3]]}"
            rows[name] = rows.get(name, 0) + tensor.shape[0]
            inputs[name] = tensor.shape[1]
            experts.setdefault(name, set()).add(match[2])
    for name, numbers in experts.items():
        found[name] = (len(numbers), rows[name] // len(numbers), inputs[name])
    return found
