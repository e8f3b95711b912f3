"""The least that trains the same adapter on the same batches with DeepSpeed: no Ray, no shards read
while training, no order, no records, nothing saved.

`torchrun -m benchmarks.bare_loop RUN_DIR RESULT [all]`; with `all` the model computes every logit,
as a loop does that hands `labels` to a transformers model.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
import torch.nn.functional as F
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from adapters.base_ref import locate
from benchmarks.commands import prepared_of, write_steps
from benchmarks.plain_lora import plain_lora
from recipes.load import load
from recipes.recipe import Recipe
from trainer.batch import Batch, collate
from trainer.order import order_of
from trainer.shards import IGNORED
from trainer.split import open_split


def main(run_dir: Path, result: str, all_logits: bool) -> None:
    """Train as the recipe of a shoal run says, and write down when each step ended."""
    dist.init_process_group("gloo")
    deepspeed.ops.__compatible_ops__ = {}  # no half minute of g++, see trainer/engine.py
    deepspeed.init_distributed(dist_init_required=False)
    torch.set_num_threads(1)
    recipe = load(run_dir / "recipe.yaml").recipe
    batches, supervised = batches_of(recipe, prepared_of(run_dir))
    engine = _engine(recipe)
    ends, losses = [], []
    for parts, number in zip(batches, supervised, strict=True):
        total = torch.zeros(())
        for batch in parts:
            loss = _loss(engine, batch, all_logits) / number
            # DeepSpeed divides by both of these.
            engine.backward(loss * dist.get_world_size() * len(parts))
            engine.step()
            total += loss.detach()
        dist.all_reduce(total)
        losses.append(float(total))
        ends.append(time.time())
    write_steps(result, ends, supervised, losses)
    dist.destroy_process_group()


def batches_of(recipe: Recipe, prepared: Path) -> tuple[list[list[Batch]], list[int]]:
    """This rank's micro-batches of every step, and the supervised tokens of the whole step."""
    split = open_split(prepared, "train")
    order = order_of(recipe, split.tokens)
    steps = range(recipe.train.steps or 0)
    own = range(dist.get_rank(), order.num_micro_batches, dist.get_world_size())
    batches = [
        [collate([split[index] for index in order.micro_batch(step, n)], 0) for n in own]
        for step in steps
    ]
    supervised = [int(split.supervised[order.rows(step)].sum()) for step in steps]
    return batches, supervised


def _engine(recipe: Recipe) -> Any:
    base = locate(recipe.base, Path(recipe.storage.cache))
    frozen = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    layers = frozen.config.num_hidden_layers
    torch.manual_seed(recipe.seed)
    model = get_peft_model(
        frozen,
        plain_lora(recipe, layers),
    ).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.train.learning_rate, weight_decay=0.0)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config={
            "train_batch_size": recipe.train.global_batch_size,
            "train_micro_batch_size_per_gpu": recipe.train.micro_batch_size,
            "gradient_clipping": recipe.train.max_grad_norm,
            "zero_optimization": {"stage": recipe.zero.stage},
            "steps_per_print": 2**31,
        },
        dist_init_required=False,
    )
    return engine


def _loss(model: Any, batch: Batch, all_logits: bool) -> torch.Tensor:
    """Cross-entropy summed over the supervised tokens of the micro-batch."""
    keep = 0 if all_logits else batch.columns
    logits = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        use_cache=False,
        logits_to_keep=keep,
    ).logits
    if all_logits:
        targets = torch.full_like(batch.input_ids, IGNORED)
        targets[:, batch.columns] = batch.targets
    else:
        targets = batch.targets
    return F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], all_logits="all" in sys.argv[3:])
