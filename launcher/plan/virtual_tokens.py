"""The tensors of kinds that put virtual tokens before each text, as PEFT makes them."""

from __future__ import annotations

from itertools import pairwise

from launcher.plan.adapter_tensors import float32
from launcher.plan.base_shape import Tensor, Widths
from recipes.adapter import PrefixTuning, PTuning, VirtualTokens

_EMBEDDING = "prompt_encoder.default.embedding.weight"


def virtual_tokens(widths: Widths, adapter: VirtualTokens) -> tuple[Tensor, ...]:
    """What is trained: the tokens' vectors, and the network that makes them if there is one."""
    if isinstance(adapter, PTuning):
        embedding = float32(_EMBEDDING, adapter.tokens, widths.hidden)
        return (embedding, *_mlp(widths.hidden, adapter.width, adapter.width, widths.hidden))
    if isinstance(adapter, PrefixTuning) and adapter.projection:
        embedding = float32(_EMBEDDING, adapter.tokens, widths.keys)
        return (embedding, *_mlp(widths.keys, adapter.width, _all_keys(widths)))
    return saved_tokens(widths, adapter)


def saved_tokens(widths: Widths, adapter: VirtualTokens) -> tuple[Tensor, ...]:
    """What is saved: for each token a vector, or its keys and values in every layer."""
    is_prefix = isinstance(adapter, PrefixTuning)
    width = _all_keys(widths) if is_prefix else widths.hidden
    return (float32(_EMBEDDING, adapter.tokens, width),)


def _mlp(*widths: int) -> list[Tensor]:
    """Weights and biases of linear layers from each width to the next."""
    made = []
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        name = f"prompt_encoder.default.mlp_head.{number}"
        made += [float32(f"{name}.weight", outputs, inputs), float32(f"{name}.bias", outputs)]
    return made


def _all_keys(widths: Widths) -> int:
    return widths.layers * 2 * widths.keys
