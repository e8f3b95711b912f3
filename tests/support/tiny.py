"""A tiny random model, its tokenizer and its prepared data: enough for the logic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from trainer.shard_writer import write_shard
from trainer.shards import IGNORED
from trainer.split import Split, write_index

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = [f"w{number}" for number in range(100)]
SPECIAL = ["<pad>", "<unk>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def make_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|end|>",
        additional_special_tokens=SPECIAL[2:],
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def make_pair_tokenizer() -> Any:
    """One that begins each text, and tells two texts apart by token types, as BERT's does."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="<|user|> $A <|end|>",
        pair="<|user|> $A <|end|> $B:1 <|end|>:1",
        special_tokens=[(name, vocabulary[name]) for name in ("<|user|>", "<|end|>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        cls_token="<|user|>",
        sep_token="<|end|>",
        pad_token="<pad>",
    )


def make_llama(folder: Path, seed: int = 0) -> Path:
    """A Llama with 3 layers of width 64, float32, about 130 thousand parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        eos_token_id=2,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def make_moe(folder: Path, seed: int = 0) -> Path:
    """A mixture of four experts, two for each token, with 2 layers of width 64, float32."""
    import torch
    from transformers import OlmoeConfig, OlmoeForCausalLM

    torch.manual_seed(seed)
    config = OlmoeConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=256,
        pad_token_id=0,
        eos_token_id=2,
        initializer_range=0.2,
    )
    OlmoeForCausalLM(config).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def make_bert(folder: Path, seed: int = 0) -> Path:
    """A BERT with 2 layers of width 64, without a head, float32."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        hidden_dropout_prob=0.1,
    )
    BertModel(config).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def samples(count: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of samples of 6 to 20 tokens, the last third of each supervised."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        ids = random.integers(6, 106, size=int(random.integers(6, 21))).tolist()
        cut = len(ids) - len(ids) // 3
        made.append((ids, [IGNORED] * cut + ids[cut:]))
    return made


def row(parts: list[tuple[list[int], list[int]]], first: int, **more: int) -> dict[str, Any]:
    """A row that packs the given samples, numbered from `first`."""
    labels = [label for _, part in parts for label in part]
    return {
        "input_ids": [token for ids, _ in parts for token in ids],
        "labels": labels,
        "lengths": [len(ids) for ids, _ in parts],
        "samples": [first + number for number in range(len(parts))],
        "supervised": sum(label != IGNORED for label in labels),
        "label": -1,
        "choice": -1,
        "answer": -1,
    } | more


def split_of(folder: Path, rows: list[dict[str, Any]]) -> Split:
    """Rows as a split of one shard, written into an own folder."""
    folder.mkdir(parents=True)
    shards = [write_shard(folder / "shard_00000.arrow", rows)] if rows else []
    write_index(folder, shards)
    return Split(folder, shards)


def write_prepared(
    folder: Path,
    train: list[dict[str, Any]],
    held_out: list[dict[str, Any]] = [],  # noqa: B006
    labels: list[str] = [],  # noqa: B006
    **more: Any,
) -> Path:
    """A prepared folder with one shard for each split that has rows; `more` of its manifest."""
    splits = {}
    for name, rows in (("train", train), ("held_out", held_out)):
        (folder / name).mkdir(parents=True)
        shards = [write_shard(folder / name / "shard_00000.arrow", rows)] if rows else []
        splits[name] = {
            "index": write_index(folder / name, shards),
            "rows": len(rows),
            "samples": sum(shard["samples"] for shard in shards),
            "tokens": sum(shard["tokens"] for shard in shards),
            "supervised": sum(shard["supervised"] for shard in shards),
            "shards": shards,
        }
    (folder / "prompts.jsonl").write_text("")
    manifest = {"splits": splits, "labels": labels, "multi_label": False, "mixture": ["tiny"]}
    (folder / "manifest.json").write_text(json.dumps(manifest | more))
    return folder
