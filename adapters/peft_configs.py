"""From a recipe's adapter to PEFT's own configuration of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from peft import (
    AdaLoraConfig,
    BOFTConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    PromptTuningInit,
    TaskType,
    VeraConfig,
)
from transformers import PreTrainedModel

from adapters import modules
from adapters.other_methods import other_config
from adapters.tokenizer import load_tokenizer
from recipes.adapter import (
    Adalora,
    Boft,
    Ia3,
    Layered,
    Loha,
    Lokr,
    Lora,
    Oft,
    OtherPeft,
    PrefixTuning,
    PromptTuning,
    PTuning,
    Ranked,
    Targeted,
    Vera,
    VirtualTokens,
)
from recipes.errors import AdapterError
from recipes.problem import did_you_mean

PeftKind = Targeted | VirtualTokens
"""Kinds that PEFT puts around a base."""

TASK_TYPE = {
    "causal_lm": TaskType.CAUSAL_LM,
    "sequence_classification": TaskType.SEQ_CLS,
}


def peft_config(
    model: PreTrainedModel,
    adapter: PeftKind,
    task: str,
    *,
    steps: int,
    folder: Path,
    new_tokens: Sequence[str],
) -> PeftConfig:
    """PEFT's configuration of an adapter, trained for some steps, on the base of a folder with new
    tokens.

    Raises `AdapterError` when a target or a module to save matches nothing, with near names, and
    when PEFT refuses a value.
    """
    if isinstance(adapter, VirtualTokens):
        shared = {"task_type": TASK_TYPE[task], "num_virtual_tokens": adapter.tokens}
    elif isinstance(adapter, Targeted):
        shared = _common(model, adapter, task)
    if isinstance(adapter, Adalora):
        shared["total_step"] = steps
    if isinstance(adapter, Lora) and (adapter.train_tokens or new_tokens):
        shared["trainable_token_indices"] = _token_rows(model, adapter, folder, new_tokens)
    try:
        return _OF[type(adapter)](model, adapter, shared)
    except ValueError as error:
        if isinstance(error, AdapterError):
            raise
        raise AdapterError(f"adapter: {error}") from error


def _token_rows(
    model: PreTrainedModel, adapter: Lora, folder: Path, new_tokens: Sequence[str]
) -> dict[str, list[int]]:
    """Rows that are trained, by module: embeddings, and of new tokens those of the head too. What
    is tied PEFT trains together."""
    vocabulary = load_tokenizer(folder, new_tokens).get_vocab()
    unknown = [text for text in adapter.train_tokens if text not in vocabulary]
    if unknown:
        hint = did_you_mean(unknown[0], vocabulary)
        raise AdapterError(
            f"adapter.train_tokens = {', '.join(unknown)}: the tokenizer of the base has no such "
            f"token. {hint} base.new_tokens adds tokens"
        )
    names = {id(module): name for name, module in model.named_modules()}
    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    wanted = dict.fromkeys([*adapter.train_tokens, *new_tokens])
    rows = {names[id(words)].rpartition(".")[2]: [vocabulary[text] for text in wanted]}
    if new_tokens and head is not None and not modules.is_tied(model):
        rows[names[id(head)].rpartition(".")[2]] = [vocabulary[text] for text in new_tokens]
    return rows


def _common(model: PreTrainedModel, adapter: Targeted, task: str) -> dict[str, Any]:
    """What the configurations of all kinds take."""
    found: dict[str, Any] = {
        "task_type": TASK_TYPE[task],
        "target_modules": modules.targets(model, adapter.targets),
        "modules_to_save": modules.to_save(model, adapter.modules_to_save),
    }
    if isinstance(adapter, Layered):
        found["layers_to_transform"] = modules.last_layers(model, adapter.last_layers)
    if isinstance(adapter, Ranked):
        patterns: dict[str, dict[str, Any]] = {
            "rank_pattern": adapter.rank_pattern,
            "alpha_pattern": adapter.alpha_pattern,
        }
        for name, of_modules in patterns.items():
            modules.check_patterns(model, found["target_modules"], of_modules, f"adapter.{name}")
        found |= patterns
    return found


_FIRST_VALUES: dict[str, Any] = {
    "kaiming": True,
    "gaussian": "gaussian",
    "orthogonal": "orthogonal",
    "olora": "olora",
    # A randomised SVD of some iterations: the exact one of a wide matrix takes minutes.
    "pissa": "pissa_niter_16",
}


def _lora(model: PreTrainedModel, adapter: Lora, common: dict[str, Any]) -> PeftConfig:
    return LoraConfig(
        **common,
        init_lora_weights=_FIRST_VALUES[adapter.initialization],
        r=adapter.r,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]
        lora_dropout=adapter.dropout,
        use_rslora=adapter.rslora,
        use_dora=adapter.dora,
        target_parameters=modules.parameters(model, adapter.target_parameters),
    )


def _adalora(model: PreTrainedModel, adapter: Adalora, common: dict[str, Any]) -> PeftConfig:
    return AdaLoraConfig(
        **common,
        target_r=adapter.r,
        init_r=adapter.first_r,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]
        lora_dropout=adapter.dropout,
        tinit=adapter.settle_steps,
        tfinal=adapter.final_steps,
        deltaT=adapter.every_steps,
        orth_reg_weight=adapter.orthogonality,
    )


def _loha(model: PreTrainedModel, adapter: Loha, common: dict[str, Any]) -> PeftConfig:
    return LoHaConfig(
        **common,
        r=adapter.r,
        alpha=adapter.alpha,  # type: ignore[arg-type]
        rank_dropout=adapter.dropout,
    )


def _lokr(model: PreTrainedModel, adapter: Lokr, common: dict[str, Any]) -> PeftConfig:
    return LoKrConfig(
        **common,
        r=adapter.r,
        alpha=adapter.alpha,  # type: ignore[arg-type]
        rank_dropout=adapter.dropout,
        decompose_factor=adapter.factor,
        decompose_both=adapter.decompose_both,
    )


def _ia3(model: PreTrainedModel, adapter: Ia3, common: dict[str, Any]) -> PeftConfig:
    return IA3Config(**common, feedforward_modules=list(adapter.feedforward))


def _oft(model: PreTrainedModel, adapter: Oft, common: dict[str, Any]) -> PeftConfig:
    return OFTConfig(
        **common, r=0, oft_block_size=adapter.block_size, block_share=adapter.share_blocks
    )


def _boft(model: PreTrainedModel, adapter: Boft, common: dict[str, Any]) -> PeftConfig:
    return BOFTConfig(**common, boft_block_size=adapter.block_size, boft_dropout=adapter.dropout)


def _vera(model: PreTrainedModel, adapter: Vera, common: dict[str, Any]) -> PeftConfig:
    # The shared matrices follow from PEFT's key: saving them would be most of a checkpoint.
    return VeraConfig(
        **common,
        r=adapter.r,
        vera_dropout=adapter.dropout,
        d_initial=adapter.first_scale,
        save_projection=False,
    )


def _prompt_tuning(
    model: PreTrainedModel, adapter: PromptTuning, common: dict[str, Any]
) -> PeftConfig:
    # Their first values are given by adapters.prompts, which needs no tokenizer of PEFT's.
    return PromptTuningConfig(**common, prompt_tuning_init=PromptTuningInit.RANDOM)


def _p_tuning(model: PreTrainedModel, adapter: PTuning, common: dict[str, Any]) -> PeftConfig:
    return PromptEncoderConfig(**common, encoder_hidden_size=adapter.width)


def _prefix_tuning(
    model: PreTrainedModel, adapter: PrefixTuning, common: dict[str, Any]
) -> PeftConfig:
    return PrefixTuningConfig(
        **common, prefix_projection=adapter.projection, encoder_hidden_size=adapter.width
    )


def _other(model: PreTrainedModel, adapter: OtherPeft, common: dict[str, Any]) -> PeftConfig:
    return other_config(adapter, common)


_OF: dict[type, Callable[[PreTrainedModel, Any, dict[str, Any]], PeftConfig]] = {
    Lora: _lora,
    Adalora: _adalora,
    Loha: _loha,
    Lokr: _lokr,
    Ia3: _ia3,
    Oft: _oft,
    Boft: _boft,
    Vera: _vera,
    PromptTuning: _prompt_tuning,
    PTuning: _p_tuning,
    PrefixTuning: _prefix_tuning,
    OtherPeft: _other,
}
