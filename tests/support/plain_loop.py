"""A plain PyTorch + PEFT loop that shares only the rows and their order with the trainer."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers import AutoModelForCausalLM

from recipes.recipe import Recipe
from recipes.train import Train
from trainer.order import order_of
from trainer.split import open_split


def plain_losses(recipe: Recipe, base: Path, prepared: Path, steps: int) -> list[float]:
    """Textbook training in float32: one sequence at a time, mean over the batch's answer tokens."""
    split = open_split(prepared, "train")
    order = order_of(recipe, split.tokens)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    layers = model.config.num_hidden_layers
    last = recipe.adapter.last_layers
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.adapter.r,
        lora_alpha=recipe.adapter.alpha,
        target_modules=sorted(recipe.adapter.targets),
        layers_to_transform=list(range(layers - last, layers)) if last else None,
        use_dora=recipe.adapter.dora,
    )
    torch.manual_seed(recipe.seed)
    model = get_peft_model(model, config)
    model.train()
    train = recipe.train
    parameters = _trained(model)
    optimizers = _OPTIMIZERS[train.optimizer](model, train)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    factors = [group["lr"] / train.learning_rate for group in groups]
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
        for group, factor in zip(groups, factors, strict=True):
            group["lr"] = factor * _rate(train, step, steps)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(total / number)
    return losses


def _adamw(model: PeftModel, train: Train) -> list[torch.optim.Optimizer]:
    options = {
        "lr": train.learning_rate,
        "betas": tuple(train.betas),
        "eps": train.eps,
    }
    if train.loraplus_ratio is None:
        return [
            torch.optim.AdamW(_trained(model), weight_decay=train.weight_decay, **options),
        ]
    return [
        create_loraplus_optimizer(
            model,
            torch.optim.AdamW,
            loraplus_lr_ratio=train.loraplus_ratio,
            loraplus_weight_decay=train.weight_decay,
            **options,
        )
    ]


def _adafactor(model: PeftModel, train: Train) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.Adafactor(
            _trained(model),
            lr=train.learning_rate,
            eps=(None, 1.0),
            weight_decay=train.weight_decay,
        )
    ]


def _muon(model: PeftModel, train: Train) -> list[torch.optim.Optimizer]:
    matrices = [p for p in _trained(model) if p.ndim == 2]
    vectors = [p for p in _trained(model) if p.ndim == 1]
    return [
        torch.optim.Muon(
            matrices,
            lr=train.learning_rate,
            weight_decay=train.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            vectors,
            lr=train.learning_rate,
            betas=tuple(train.betas),
            eps=train.eps,
            weight_decay=train.weight_decay,
        ),
    ]


def _trained(model: PeftModel) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


_OPTIMIZERS = {"adamw": _adamw, "adafactor": _adafactor, "muon": _muon}


def _rate(train: Train, step: int, steps: int) -> float:
    """Linear decay after a linear warm-up, or constant: all these tests use."""
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    if train.schedule == "constant":
        return train.learning_rate
    assert train.schedule == "linear"
    return train.learning_rate * (steps - step) / (steps - train.warmup_steps)
