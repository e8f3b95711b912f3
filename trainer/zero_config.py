"""DeepSpeed's configuration, from the recipe."""

from __future__ import annotations

import os
import socket
from typing import Any

from recipes.errors import ClusterError
from recipes.recipe import Recipe
from recipes.zero import Zero


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


def check_hpz(zero: Zero, num_workers: int) -> None:
    """Raises `ClusterError` when the workers of this node, which Ray placed, or all of them cannot
    be divided as `zero.hpz_size` says."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", num_workers))
    if here % zero.hpz_size or num_workers % zero.hpz_size:
        raise ClusterError(
            f"zero.hpz_size = {zero.hpz_size}: does not divide the {here} workers on "
            f"{socket.gethostname()}, of {num_workers} in all. Set it to a divisor of the workers "
            "of each node, or leave it out"
        )


def _stage(recipe: Recipe) -> dict[str, Any]:
    # overlap_comm hides the traffic of gradients; an adapter's are too few to be worth its buffers.
    stage: dict[str, Any] = {"stage": recipe.zero.stage, "overlap_comm": False}
    if recipe.zero.offload_optimizer:
        # Pinned memory fails where a batch system limits it, and megabytes travel fast without.
        stage["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    if recipe.zero.offload_parameters:
        stage["offload_param"] = {"device": "cpu", "pin_memory": False}
    if recipe.zero.hpz_size > 1:
        stage["zero_hpz_partition_size"] = recipe.zero.hpz_size
    return stage
