"""A plain PyTorch + PEFT loop that shares only the rows and their order with the trainer."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from recipes.recipe import Recipe
from recipes.train import Train
from trainer.order import Order
from trainer.shards import open_split


def plain_losses(recipe: Recipe, base: Path, prepared: Path, steps: int) -> list[float]:
    """Textbook training in float32: one sequence at a time, mean over the batch's answer tokens."""
    split = open_split(prepared, "train")
    order = Order(
        num_rows=len(split),
        seed=recipe.seed,
        global_batch_size=recipe.train.global_batch_size,
        micro_batch_size=1,
    )
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    layers = model.config.num_hidden_layers
    last = recipe.adapter.last_layers
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.adapter.r,
        lora_alpha=recipe.adapter.alpha,
        target_modules=sorted(recipe.adapter.targets),
        layers_to_transform=list(range(layers - last, layers)) if last else None,
    )
    torch.manual_seed(recipe.seed)
    model = get_peft_model(model, config)
    model.train()
    train = recipe.train
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=train.learning_rate,
        betas=tuple(train.betas),
        eps=train.eps,
        weight_decay=train.weight_decay,
    )
    losses = []
    for step in range(steps):
        rows = [split[index] for index in order.rows(step)]
        number = sum(int((torch.tensor(row.labels) != -100).sum()) for row in rows)
        total = 0.0
        for row in rows:
            ids = torch.tensor(row.input_ids, dtype=torch.int64)[None]
            labels = torch.tensor(row.labels, dtype=torch.int64)[None]
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            loss = torch.nn.functional.cross_entropy(
                logits[0, :-1], labels[0, 1:], ignore_index=-100, reduction="sum"
            )
            (loss / number).backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, train.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = _rate(train, step, steps)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total / number)
    return losses


def _rate(train: Train, step: int, steps: int) -> float:
    """Linear decay after a linear warm-up, or constant: all these tests use."""
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    if train.schedule == "constant":
        return train.learning_rate
    assert train.schedule == "linear"
    return train.learning_rate * (steps - step) / (steps - train.warmup_steps)
