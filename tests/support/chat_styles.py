"""Small tokenizers with the chat templates of well-known families, written again in a few lines
each: their structure is what matters, not their words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from trainer.shards import IGNORED

TEMPLATES = Path(__file__).parent / "chat_templates"

# Of each style the special tokens, the first of which begins a text if it is one that does, and the
# one that ends a text; then tokens that are added but not special.
_TOKENS: Mapping[str, tuple[list[str], list[str]]] = {
    "chatml": (["<|endoftext|>", "<|im_start|>", "<|im_end|>"], []),
    "qwen2_5": (["<|endoftext|>", "<|im_start|>", "<|im_end|>"], ["<tool_call>", "</tool_call>"]),
    "qwen3": (
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        ["<think>", "</think>", "<tool_call>", "</tool_call>"],
    ),
    "llama3": (
        [
            "<|begin_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|python_tag|>",
            "<|eom_id|>",
            "<|eot_id|>",
        ],
        [],
    ),
    "gemma": (["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], []),
    "mistral": (
        [
            "<s>",
            "</s>",
            "[INST]",
            "[/INST]",
            "[TOOL_CALLS]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
        ],
        [],
    ),
    "marked": (["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"], []),
    "next_role": (
        ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"],
        [],
    ),
    "words": (["<s>", "</s>"], []),
    "images": (["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>"], []),
}
_BEGINS = {"llama3": "<|begin_of_text|>", "gemma": "<bos>", "mistral": "<s>", "words": "<s>"}
_ENDS = {
    "chatml": "<|im_end|>",
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<eos>",
    "mistral": "</s>",
    "marked": "<|end|>",
    "next_role": "<|endoftext|>",
    "words": "</s>",
    "images": "<|im_end|>",
}
# As SentencePiece does it, a space is part of the word after it, and what has no token is bytes.
_METASPACE = ("gemma", "mistral", "words")
_TEXT = (
    "The capital of France is Paris. What is the weather in Paris and in Rome? It is sunny, 21 "
    "degrees, and the wind is weak.\n\nHello there, how can I help? I think that two and two are "
    'four. {"name": "weather", "arguments": {"city": "Rome"}} 你好，今天天气很好。user assistant '
    "system model tool\n"
)


def style(name: str) -> Any:
    """A new tokenizer with the template of a style."""
    from transformers import PreTrainedTokenizerFast

    special, added = _TOKENS[name]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_trained(name in _METASPACE),
        bos_token=_BEGINS.get(name),
        eos_token=_ENDS[name],
        additional_special_tokens=special,
    )
    tokenizer.add_tokens(added)
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text()
    return tokenizer


def _trained(metaspace: bool) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(_trained_json(metaspace))


@cache
def _trained_json(metaspace: bool) -> str:
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
    from tokenizers.models import BPE

    if not metaspace:
        tokenizer = Tokenizer(BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=500, initial_alphabet=sorted(alphabet), show_progress=False
        )
        tokenizer.train_from_iterator([_TEXT] * 4, trainer)
        return str(tokenizer.to_str())
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[f"<0x{byte:02X}>" for byte in range(256)],
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT] * 4, trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = []
    state["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return str(tokenizer.to_str())


def by_prefixes(tokenizer: Any, messages: list[dict[str, Any]]) -> list[int]:
    """Labels of a chat where each turn is what a chat up to it has more than the prompt for it, up
    to its last special token. Knows nothing of characters."""

    def ids(part: list[dict[str, Any]], prompt: bool = False) -> list[int]:
        found = tokenizer.apply_chat_template(part, add_generation_prompt=prompt, return_dict=True)
        return list(found["input_ids"])

    whole = ids(messages)
    labels = [IGNORED] * len(whole)
    special = set(tokenizer.all_special_ids)
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before, after = ids(messages[:number], prompt=True), ids(messages[: number + 1])
        assert after[: len(before)] == before
        assert whole[: len(after)] == after
        ends = [place for place in range(len(before), len(after)) if after[place] in special]
        end = ends[-1] + 1 if ends else len(after)
        labels[len(before) : end] = after[len(before) : end]
    return labels
