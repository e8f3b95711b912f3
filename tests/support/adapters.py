"""An adapter of every kind for the tiny model, by the names of recipes.compatibility."""

from __future__ import annotations

from recipes.adapter import (
    Adalora,
    Adapter,
    Boft,
    Full,
    Ia3,
    LnTuning,
    Loha,
    Lokr,
    Lora,
    Oft,
    OtherPeft,
    PrefixTuning,
    PromptTuning,
    PTuning,
    Unfreeze,
    Vera,
)
from recipes.compatibility import kind_of

ADAPTERS: dict[str, Adapter] = {
    "lora": Lora(r=4, alpha=8, rslora=True),
    "dora": Lora(r=4, alpha=8, dora=True),
    "pissa": Lora(r=4, alpha=8, initialization="pissa", rank_pattern={"layers.1.*q_proj": 6}),
    "olora": Lora(r=4, alpha=8, initialization="olora", rslora=True, targets=["q_proj", "o_proj"]),
    "tokens": Lora(r=4, alpha=8, train_tokens=["<|assistant|>", "w3", "w40"]),
    "adalora": Adalora(r=2, first_r=6, settle_steps=1, final_steps=2, every_steps=2),
    "loha": Loha(r=4, rank_pattern={"down_proj": 2}, alpha_pattern={"down_proj": 3.0}),
    "lokr": Lokr(r=4, factor=4, decompose_both=True),
    "ia3": Ia3(),
    "oft": Oft(block_size=8),
    "boft": Boft(),
    "vera": Vera(r=16),
    "ln_tuning": LnTuning(),
    "unfreeze": Unfreeze(targets=["down_proj", "input_layernorm"], last_layers=2),
    "full": Full(),
    "hra": OtherPeft(method="HRA", options={"r": 4}),
    "miss": OtherPeft(method="miss", options={"r": 4}, targets=["q_proj", "down_proj"]),
    "prompt_tuning": PromptTuning(tokens=6, text="w1 w2"),
    "p_tuning": PTuning(tokens=12, width=64),
    "prefix_tuning": PrefixTuning(tokens=6),
    "prefix_projected": PrefixTuning(tokens=6, projection=True, width=16),
}


def named(kind: str) -> str:
    """An adapter of a kind of the table."""
    return next(name for name, adapter in ADAPTERS.items() if kind_of(adapter) == kind)
