"""Adapters that are virtual tokens before each text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft import (
    PeftConfig,
    PeftModel,
    PrefixEncoder,
    PrefixTuningConfig,
    PromptEncoder,
    PromptEncoderConfig,
    PromptLearningConfig,
)
from torch.func import functional_call

from adapters.attached import Tensors
from adapters.base import LoadedBase
from adapters.sharded import whole
from adapters.tokenizer import load_tokenizer
from recipes.adapter import PromptTuning
from recipes.errors import AdapterError

_OWN = "prompt_encoder.default."
_NETWORKS: dict[type[PeftConfig], Any] = {
    PromptEncoderConfig: PromptEncoder,
    PrefixTuningConfig: PrefixEncoder,
}


def begin_prompt(model: PeftModel, base: LoadedBase, adapter: PromptTuning, seed: int) -> None:
    """Let virtual tokens begin as those of a text, or as random ones of the vocabulary: random
    vectors learn worse (arXiv:2104.08691, section 3.2). Collective under stage 3."""
    words: Any = base.model.get_input_embeddings()
    if adapter.text is None:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(words.num_embeddings, (adapter.tokens,), generator=generator)
    else:
        told = load_tokenizer(base.folder)(adapter.text, add_special_tokens=False)["input_ids"]
        if not told:
            raise AdapterError("adapter.text: holds no token. Leave it out, or write one")
        ids = torch.tensor(told).repeat(-(-adapter.tokens // len(told)))[: adapter.tokens]
    with whole(words.weight) as vectors:
        first = vectors[ids.to(vectors.device)].detach().float().clone()
    encoder: Any = model.prompt_encoder["default"]
    encoder.embedding.weight.data = first


def shift_of(config: PeftConfig) -> int | None:
    """Positions by which virtual tokens move those of a text; None without any."""
    if not isinstance(config, PromptLearningConfig):
        return None
    # The keys and values of a prefix come from nowhere.
    return 0 if isinstance(config, PrefixTuningConfig) else int(config.num_virtual_tokens)


def saved_prompt(config: PeftConfig, master: Mapping[str, torch.Tensor]) -> Tensors:
    """What PEFT opens: the vectors themselves, of a network what it gives."""
    own = {name.removeprefix(_OWN): value for name, value in master.items()}
    network = _NETWORKS.get(type(config))
    if network is None or own.keys() == {"embedding.weight"}:
        return {"prompt_embeddings": own["embedding.weight"].clone()}
    # On `meta`, where making one draws no random number, and apart from the model in training.
    with torch.device("meta"):
        made = network(config)
    tokens = torch.arange(len(own["embedding.weight"]))
    with torch.no_grad():
        vectors: torch.Tensor = functional_call(made, own, (tokens,))
    return {"prompt_embeddings": vectors}
