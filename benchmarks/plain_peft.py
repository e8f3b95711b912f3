"""PEFT and torch alone, training the adapter of a shoal run on the same batches in one process.

`torchrun -m benchmarks.plain_peft RUN_DIR RESULT`; the adapter is made from the configuration that
the run saved.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from peft import PeftConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from adapters.base_ref import locate
from adapters.checkpoint_folder import adapter_folder, newest
from benchmarks.bare_loop import batches_of
from benchmarks.commands import prepared_of, write_steps
from recipes.load import load
from recipes.recipe import Recipe
from trainer.batch import Batch
from trainer.shards import IGNORED


def main(run_dir: Path, result: str) -> None:
    """Train as the recipe of a shoal run says, and write down when each step ended."""
    dist.init_process_group("gloo")  # of one process: the batches are dealt out by it
    torch.set_num_threads(1)
    recipe = load(run_dir / "recipe.yaml").recipe
    batches, supervised = batches_of(recipe, prepared_of(run_dir))
    model = _model(recipe, run_dir)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.train.learning_rate, weight_decay=0.0)
    ends, losses = [], []
    for parts, number in zip(batches, supervised, strict=True):
        total = 0.0
        for batch in parts:
            loss = _loss(model, batch) / number
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(trained, recipe.train.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
        ends.append(time.time())
    write_steps(result, ends, supervised, losses)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    Path(result).with_name("plain_peft_peak.json").write_text(json.dumps(peak), encoding="utf-8")
    dist.destroy_process_group()


def _model(recipe: Recipe, run_dir: Path) -> Any:
    options: dict[str, Any] = {}
    if recipe.base.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.float32,
            bnb_4bit_use_double_quant=recipe.base.double_quantization,
        )
    base = locate(recipe.base, Path(recipe.storage.cache))
    frozen = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **options)
    checkpoint = newest(run_dir / "checkpoints")
    assert checkpoint is not None
    config = PeftConfig.from_pretrained(str(adapter_folder(checkpoint)))
    config.inference_mode = False
    torch.manual_seed(recipe.seed)
    return get_peft_model(frozen, config).train()


def _loss(model: Any, batch: Batch) -> torch.Tensor:
    """Cross-entropy summed over the supervised tokens of the micro-batch."""
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        use_cache=False,
        logits_to_keep=int(batch.input_ids.shape[1] - batch.columns.min()),
    ).logits
    first = batch.input_ids.shape[1] - logits.shape[1]
    targets = torch.full_like(batch.input_ids, IGNORED)
    targets[:, batch.columns] = batch.targets
    return F.cross_entropy(
        logits.flatten(0, 1), targets[:, first:].flatten(), ignore_index=IGNORED, reduction="sum"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
