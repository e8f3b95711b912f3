"""The adapter of a recipe as those shoal is compared with are given it."""

from __future__ import annotations

from peft import LoraConfig

from recipes.adapter import Lora
from recipes.recipe import Recipe


def plain_lora(recipe: Recipe, layers: int) -> LoraConfig:
    """PEFT's own configuration, for a causal model of so many layers."""
    adapter = recipe.adapter
    assert isinstance(adapter, Lora)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.r,
        lora_alpha=int(adapter.alpha),
        target_modules=sorted(adapter.targets),
        layers_to_transform=list(range(layers - (adapter.last_layers or 0), layers)),
    )
