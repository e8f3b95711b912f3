"""TRL's SFTTrainer on the same base, LoRA, tokens and labels, two processes.

`torchrun -m benchmarks.trl_sft RUN_DIR RESULT [packing]`: without packing the rows are those of the
shoal run; with packing they are its samples one by one, which TRL packs itself.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from adapters.base_ref import locate
from benchmarks.commands import prepared_of, write_steps
from benchmarks.plain_lora import plain_lora
from recipes.load import load
from recipes.recipe import Recipe
from trainer.shards import IGNORED
from trainer.split import open_split

Columns = dict[str, list[list[int]]]


class _Clock(TrainerCallback):
    """Notes when steps end and how many supervised tokens each had."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.supervised: list[int] = []
        self.in_step = 0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.time())
        self.supervised.append(self.in_step)
        self.in_step = 0


def main(run_dir: Path, result: str, packing: bool) -> None:
    """Train as the recipe of a shoal run says, and write down when each step ended."""
    torch.set_num_threads(1)
    recipe = load(run_dir / "recipe.yaml").recipe
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(recipe, Dataset.from_dict(_columns(run_dir)), folder, packing)
        trainer.add_callback(clock)
        _count_supervised(trainer, clock)
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    write_steps(result, clock.ends, clock.supervised, losses)


def _columns(run_dir: Path) -> Columns:
    """The samples that shoal prepared, packed rows taken apart again."""
    split = open_split(prepared_of(run_dir), "train")
    columns: Columns = {"input_ids": [], "labels": []}
    for index in range(len(split)):
        row = split[index]
        end = 0
        for length in row.lengths.tolist():
            begin, end = end, end + length
            columns["input_ids"].append(row.input_ids[begin:end].tolist())
            columns["labels"].append(row.labels[begin:end].tolist())
    return columns


def _trainer(recipe: Recipe, data: Any, folder: str, packing: bool) -> Any:
    base = locate(recipe.base, Path(recipe.storage.cache))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    layers = model.config.num_hidden_layers
    train = recipe.train
    world = int(os.environ["WORLD_SIZE"])
    config = SFTConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=recipe.base.gradient_checkpointing,
        per_device_train_batch_size=train.micro_batch_size,
        gradient_accumulation_steps=train.global_batch_size // (train.micro_batch_size * world),
        max_steps=train.steps or -1,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.schedule,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        max_length=recipe.data.sequence_length,
        packing=packing,
        seed=recipe.seed,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )
    return SFTTrainer(
        model=model,
        args=config,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=plain_lora(recipe, layers),
    )


def _count_supervised(trainer: Any, clock: _Clock) -> None:
    """Let the clock see the labels of every batch of this rank; both ranks have as many rows."""
    collate = trainer.data_collator
    world = int(os.environ["WORLD_SIZE"])

    def counting(rows: list[Any]) -> Any:
        batch = collate(rows)
        # The first token of a row is never learnt.
        learnt = int((batch["labels"][:, 1:] != IGNORED).sum())
        clock.in_step += learnt * world
        return batch

    trainer.data_collator = counting


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], packing="packing" in sys.argv[3:])
