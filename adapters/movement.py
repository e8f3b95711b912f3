"""Whether what is trained has changed since it began: what has not was trained for nothing."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.checkpoint import TrainerState, checksum
from recipes.errors import AdapterError

# The first rate of a warm-up is zero, and some kinds begin with a product of a zero matrix, whose
# other factor has no gradient before the zero one has moved.
_STEPS_TO_MOVE = 4


def check_moved(state: TrainerState, first: Mapping[str, int]) -> None:
    """Raises `AdapterError` when a tensor is what it was before the first step, by its checksum."""
    still = [
        name
        for name, values in state.master.items()
        # AdaLoRA takes away all ranks of some modules, which begin with zeros.
        if checksum(values) == first[name] and not (state.ranks and ".lora_E." in name)
    ]
    if len(still) == len(first):
        raise AdapterError(
            f"adapter: nothing in it changed in {state.step} steps. Check adapter.targets and "
            "train.learning_rate"
        )
    if still and state.step >= _STEPS_TO_MOVE:
        raise AdapterError(
            f"adapter: {len(still)} of its {len(first)} tensors did not change in {state.step} "
            f"steps, among them {still[0]}. The loss does not depend on them: usually their "
            "modules are not used for this task, as a pooler or a second head, or no sample "
            "reaches them, as a rare expert. Name in adapter.targets only those that are, or "
            "leave layers out with adapter.last_layers"
        )
