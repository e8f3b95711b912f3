"""Shapes told from headers against those of the real modules."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import pytest
import torch
from transformers import (
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from adapters.attach import trained_parameters
from adapters.base import empty_base
from launcher.plan.adapter_shape import adapter_shape
from launcher.plan.base_shape import read_base_shape, read_header
from recipes.adapter import (
    Boft,
    Full,
    Ia3,
    LnTuning,
    Loha,
    Lokr,
    Lora,
    Oft,
    PrefixTuning,
    PromptTuning,
    PTuning,
    Unfreeze,
    Vera,
)
from recipes.errors import AdapterError, BaseModelError
from support import tiny

PLAIN = Lora(r=4, alpha=8, targets=["q_proj", "v_proj"])
SIZES = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bases")
    tiny.make_llama(root / "llama")
    tiny.make_bert(root / "bert")
    tied = Qwen2Config(**SIZES, num_key_value_heads=2, tie_word_embeddings=True)
    Qwen2ForCausalLM(tied).save_pretrained(root / "qwen2")
    small = GPT2Config(vocab_size=128, n_embd=64, n_layer=2, n_head=4, n_positions=256)
    GPT2LMHeadModel(small).save_pretrained(root / "gpt2")
    XLMRobertaModel(XLMRobertaConfig(**SIZES)).save_pretrained(root / "xlmr")
    return root


CASES = [
    ("llama", "causal_lm", {}),
    ("llama", "causal_lm", {"targets": ["all-linear"]}),
    ("llama", "causal_lm", {"targets": ["all-linear"], "last_layers": 2, "dora": True}),
    ("llama", "causal_lm", {"targets": ["o_proj", "down_proj"], "r": 7}),
    ("llama", "causal_lm", {"modules_to_save": ["norm", "lm_head"]}),
    ("llama", "sequence_classification", {}),
    ("qwen2", "causal_lm", {"targets": ["all-linear"]}),
    ("gpt2", "causal_lm", {"targets": ["all-linear"], "last_layers": 1}),
    ("gpt2", "causal_lm", {"targets": ["c_attn"]}),
    ("bert", "sequence_classification", {"targets": ["query", "value"]}),
    ("bert", "sequence_classification", {"targets": ["all-linear"]}),
    ("bert", "sequence_classification", {"targets": ["all-linear"], "last_layers": 1}),
    ("xlmr", "sequence_classification", {"targets": ["query", "value"]}),
]


@pytest.mark.parametrize(("name", "task", "changes"), CASES)
def test_what_is_trained_is_what_peft_trains(bases: Path, name: str, task: str, changes: dict):
    adapter = dataclasses.replace(PLAIN, **changes)
    shape = read_base_shape(bases / name, task=task, num_labels=2)
    assert adapter_shape(shape, adapter).parameters == trained_parameters(
        bases / name, adapter, task=task
    )


KINDS = [
    Lora(r=3, targets=[r"re:model\.layers\.[01]\..*_proj"]),
    Lora(r=3, rank_pattern={"layers.1.*q_proj": 5, "v_proj": 2}, initialization="pissa"),
    Loha(r=3),
    Lokr(r=3, rank_pattern={"down_proj": 2}),
    Loha(r=3, last_layers=1),
    Lokr(r=3),
    Lokr(r=2, decompose_both=True, factor=4),
    Lokr(r=100, factor=7),
    Ia3(),
    Ia3(targets=["all-linear"], feedforward=["o_proj", "down_proj"]),
    Oft(),
    Oft(block_size=10, share_blocks=True),
    Boft(),
    Vera(r=5),
    LnTuning(),
    LnTuning(targets=["input_layernorm"], modules_to_save=["lm_head"]),
    Unfreeze(),
    Unfreeze(targets=["mlp.down_proj", "norm"], modules_to_save=["embed_tokens"]),
    Unfreeze(last_layers=1),
    Full(),
    PromptTuning(tokens=5),
    PTuning(tokens=5, width=24),
    PrefixTuning(tokens=5),
    PrefixTuning(tokens=5, projection=True, width=24),
]


@pytest.mark.parametrize("adapter", KINDS, ids=lambda adapter: adapter.kind)
def test_every_kind_trains_what_peft_trains(bases: Path, adapter):
    shape = read_base_shape(bases / "llama", task="causal_lm", num_labels=2)
    found = trained_parameters(bases / "llama", adapter, task="causal_lm")
    assert adapter_shape(shape, adapter).parameters == found


def test_stacks_of_experts(bases: Path):
    """The files hold each expert apart, the model a stack of them."""
    tiny.make_moe(bases / "moe")
    shape = read_base_shape(bases / "moe", task="causal_lm", num_labels=2)
    for adapter in (
        Lora(r=3, target_parameters=["mlp.experts.gate_up_proj", "experts.down_proj"]),
        Full(),
    ):
        found = trained_parameters(bases / "moe", adapter, task="causal_lm")
        assert adapter_shape(shape, adapter).parameters == found
    wrong = Lora(target_parameters=["mlp.experts.gate_proj"])
    for fails in (
        lambda: trained_parameters(bases / "moe", wrong, task="causal_lm"),
        lambda: adapter_shape(shape, wrong),
    ):
        with pytest.raises(AdapterError, match="It has: down_proj, gate_up_proj"):
            fails()


def test_norms_of_other_bases(bases: Path):
    for name, task in (("gpt2", "causal_lm"), ("bert", "sequence_classification")):
        shape = read_base_shape(bases / name, task=task, num_labels=2)
        found = trained_parameters(bases / name, LnTuning(), task=task)
        assert adapter_shape(shape, LnTuning()).parameters == found


def test_bases_that_are_trained_themselves(bases: Path):
    """A tied embedding is trained once and saved twice; a new head is always trained."""
    for adapter in (Full(), Unfreeze(modules_to_save=["embed_tokens"])):
        shape = read_base_shape(bases / "qwen2", task="causal_lm", num_labels=2)
        found = adapter_shape(shape, adapter)
        assert found.parameters == trained_parameters(bases / "qwen2", adapter, task="causal_lm")
        assert sum(tensor.elements for tensor in found.saved) == found.parameters + 128 * 64
    for adapter in (Full(), Unfreeze(targets=["query"]), LnTuning()):
        for name in ("bert", "xlmr"):
            shape = read_base_shape(bases / name, task="sequence_classification", num_labels=2)
            found = adapter_shape(shape, adapter)
            assert found.parameters == trained_parameters(
                bases / name, adapter, task="sequence_classification"
            )


@pytest.mark.parametrize(
    ("name", "task"), sorted({(name, task) for name, task, _ in CASES}, key=str)
)
def test_the_base_has_the_parameters_of_the_loaded_model(bases: Path, name: str, task: str):
    with torch.device("meta"):
        model = empty_base(bases / name, task=task)
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert read_base_shape(bases / name, task=task, num_labels=2).parameters == expected


def test_a_head_in_the_files_gives_way_to_one_for_the_labels(bases: Path, tmp_path: Path):
    model = LlamaForSequenceClassification.from_pretrained(bases / "llama", num_labels=2)
    model.save_pretrained(tmp_path)
    five = read_base_shape(tmp_path, task="sequence_classification", num_labels=5)
    assert [(tensor.name, tensor.shape) for tensor in five.head] == [("score.weight", (5, 64))]
    assert not any("score" in tensor.name for tensor in five.tensors)


def test_wrong_targets_are_told_as_by_the_run(bases: Path):
    shape = read_base_shape(bases / "llama", task="causal_lm", num_labels=2)
    wrong = [{"targets": ["q_prj"]}, {"targets": ["lm_head"]}, {"last_layers": 4}]
    for changes in wrong:
        adapter = dataclasses.replace(PLAIN, **changes)
        with pytest.raises(AdapterError) as real:
            trained_parameters(bases / "llama", adapter, task="causal_lm")
        with pytest.raises(AdapterError) as planned:
            adapter_shape(shape, adapter)
        assert str(planned.value).split(":")[0] == str(real.value).split(":")[0]
    with pytest.raises(AdapterError, match="Did you mean q_proj"):
        adapter_shape(shape, dataclasses.replace(PLAIN, targets=["q_prj"]))


def test_widths(bases: Path):
    widths = read_base_shape(bases / "llama", task="causal_lm", num_labels=2).widths
    assert (widths.layers, widths.hidden, widths.intermediate, widths.vocabulary) == (
        3,
        64,
        96,
        128,
    )
    assert (widths.attention, widths.heads, widths.kv_heads, widths.gated) == (64, 4, 2, True)
    assert not widths.hidden_dropout
    bert = read_base_shape(bases / "bert", task="sequence_classification", num_labels=2).widths
    assert bert.hidden_dropout and bert.attention_dropout and not bert.gated


def test_a_header_is_read_and_a_torn_one_refused(tmp_path: Path):
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a.weight": {"dtype": "BF16", "shape": [3, 5], "data_offsets": [0, 30]},
        }
    ).encode()
    whole = tmp_path / "whole.safetensors"
    whole.write_bytes(struct.pack("<Q", len(header)) + header)
    (tensor,) = read_header(whole)
    assert (tensor.name, tensor.shape, tensor.elements) == ("a.weight", (3, 5), 15)
    assert tensor.stored_bytes == 30
    for content in (b"", b"abc", struct.pack("<Q", 2**40) + b"{}", struct.pack("<Q", 9) + b"{"):
        torn = tmp_path / "torn.safetensors"
        torn.write_bytes(content)
        with pytest.raises(BaseModelError, match=r"torn\.safetensors: is no safetensors file"):
            read_header(torn)


def test_other_weights_are_refused_with_the_fix(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BaseModelError, match="save_pretrained"):
        read_base_shape(tmp_path, task="causal_lm", num_labels=2)


def test_bert_is_read_without_its_pooler_too(bases: Path, tmp_path: Path):
    model = BertModel.from_pretrained(bases / "bert", add_pooling_layer=False)
    model.save_pretrained(tmp_path)
    task = "sequence_classification"
    without = read_base_shape(tmp_path, task=task, num_labels=2)
    assert without.parameters == read_base_shape(bases / "bert", task=task, num_labels=2).parameters
