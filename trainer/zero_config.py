"""DeepSpeed's configuration, from the recipe."""

from __future__ import annotations

from typing import Any

from recipes.recipe import Recipe


def zero_config(
    recipe: Recipe, *, num_workers: int, accumulation: int, bfloat16: bool
) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`.

    Adapters stay float32 under every stage, so bfloat16 is said only where DeepSpeed needs it to
    load the frozen base sharded (stage 3); elsewhere the forward pass is autocast.
    """
    micro = recipe.train.micro_batch_size
    return {
        "train_batch_size": micro * accumulation * num_workers,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": recipe.train.max_grad_norm,
        "zero_optimization": _stage(recipe.zero.stage),
        "bf16": {"enabled": bfloat16 and recipe.zero.stage == 3},
        "communication_data_type": "fp32",
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


def _stage(stage: int) -> dict[str, Any]:
    # overlap_comm hides the traffic of gradients; an adapter's are too few to be worth its buffers.
    return {"stage": stage, "overlap_comm": False}
