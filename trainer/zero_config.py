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
        "zero_optimization": _stage(recipe),
        # DeepSpeed knows by name which optimizers may step flat parts; 8-bit AdamW, which treats
        # each element by itself but for its rounding, is not among them.
        "zero_allow_untested_optimizer": recipe.train.optimizer == "adamw_8bit",
        # Torch's AdamW steps offloaded state as well; DeepSpeed's own needs a compiler.
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": bfloat16 and recipe.zero.stage == 3},
        "communication_data_type": "fp32",
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


def _stage(recipe: Recipe) -> dict[str, Any]:
    # overlap_comm hides the traffic of gradients; an adapter's are too few to be worth its buffers.
    stage: dict[str, Any] = {"stage": recipe.zero.stage, "overlap_comm": False}
    if recipe.zero.offload_optimizer:
        # Pinned memory fails where a batch system limits it, and megabytes travel fast without.
        stage["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    return stage
