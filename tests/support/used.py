"""Runs that were never trained: an adapter with random values, sealed as a checkpoint is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from adapters.base_ref import base_ref
from adapters.checkpoint_folder import Origin, Position, folder_of, write_manifest
from recipes import resolved
from recipes.load import load

RECIPE = """\
task: {task}
base: {{source: {base}, dtype: float32}}
data: {{train: ["{data}"], held_out_fraction: 0.1}}
train: {{steps: 1}}
cluster: {{device: cpu}}
storage: {{path: "{storage}", cache: "{cache}"}}
"""


def lora(**changes: Any) -> LoraConfig:
    values: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    return LoraConfig(**{**values, "task_type": "CAUSAL_LM", **changes})


def make_run(
    storage: Path,
    name: str,
    base: Path,
    *,
    config: PeftConfig | None = None,
    seed: int = 0,
    step: int = 7,
    labels: tuple[str, ...] = (),
    multi_label: bool = False,
    data: str = "/nowhere.jsonl",
    more: str = "",
    spread: float = 0.3,
) -> Path:
    """The folder of a run with one checkpoint; `more` is YAML that is added to its recipe."""
    run_dir = storage / name
    run_dir.mkdir(parents=True, exist_ok=True)
    task = "sequence_classification" if labels else "causal_lm"
    text = RECIPE.format(
        task=task, base=base, data=data, storage=storage, cache=storage.parent / "cache"
    )
    plain = run_dir / f"{name}.yaml"
    plain.write_text(text + more)
    (run_dir / "recipe.yaml").write_text(resolved.to_yaml(load(str(plain))))
    plain.unlink()
    folder = folder_of(run_dir / "checkpoints", step)
    save_adapter(folder / "adapter", base, config or lora(), seed, len(labels), spread)
    origin = Origin(
        base=base_ref(str(base), None, base),
        recipe_digest="r",
        data_digest="d",
        dtype="float32",
        labels=labels,
        multi_label=multi_label,
    )
    write_manifest(folder, origin, Position(step=step))
    return run_dir


def save_adapter(
    folder: Path, base: Path, config: PeftConfig, seed: int, labels: int, spread: float
) -> None:
    """What PEFT itself writes of an adapter with random values."""
    # What PEFT begins with is random too, and must not depend on the tests before.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if labels:
            model: Any = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
        else:
            model = AutoModelForCausalLM.from_pretrained(base)
        peft = get_peft_model(model, config)
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.data += spread * torch.randn(parameter.shape)
    peft.save_pretrained(str(folder), save_embedding_layers=False)
