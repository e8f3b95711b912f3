"""The card: what the hub reads of it, and what a person does."""

from __future__ import annotations

from dataclasses import replace

import yaml

from adapters.base_ref import BaseRef
from adapters.model_card import Facts, Rows, adapter_card, gguf_card, merged_card

FACTS = Facts(
    run="reviews",
    description="Tell good\nfrom bad.",
    task="sequence_classification",
    kind="lora",
    step=1200,
    base=BaseRef(source="org/small", revision="3f2a", digest="ab" * 32, parts={}),
    hub_id="org/small",
    quantization="none",
    new_tokens=(),
    labels=("bad", "good"),
    multi_label=False,
    rows=Rows(
        train_samples=1000,
        train_sequences=250,
        train_tokens=64000,
        supervised_tokens=9000,
        held_out_samples=100,
    ),
    data_digest="cd" * 32,
    recipe_digest="ef" * 32,
    settings={"seed": 0, "adapter": {"kind": "lora", "r": 8}},
    before={"rows": 100.0, "accuracy": 0.5},
    after={"rows": 100.0, "accuracy": 0.875},
    versions={"shoal": "0.1.0", "peft": "0.21.2"},
)


def front(card: str) -> dict:
    empty, matter, _ = card.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(matter)


def test_an_adapters_card():
    card = adapter_card(FACTS)
    assert front(card) == {
        "base_model": "org/small",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-classification",
        "tags": ["peft", "lora", "shoal"],
    }
    for said in (
        "# reviews\n\nTell good from bad.\n\nA `lora` adapter trained with shoal for 1,200 steps.",
        "base = AutoModelForSequenceClassification.from_pretrained('org/small', revision='3f2a', "
        "id2label={0: 'bad', 1: 'good'})\n",
        f"`org/small`, revision `3f2a`. The digest of its files is `{'ab' * 32}`.",
        "On 100 held-out samples:\n\n|  | base | trained |\n|---|---|---|\n"
        "| accuracy | 0.5000 | 0.8750 |\n",
        "1,000 samples in 250 sequences, 9,000 of 64,000 tokens supervised; 100 samples held out.",
        f"The digest of its training rows is `{'cd' * 32}`. Labels: `bad`, `good`.",
        "```yaml\nseed: 0\nadapter:\n  kind: lora\n  r: 8\n```",
        "shoal 0.1.0, peft 0.21.2.",
    ):
        assert said in card


def test_a_path_is_no_base_for_the_hub():
    """The hub refuses a card whose base_model is no hub id."""
    base = BaseRef(source="/home/me/small", revision=None, digest="ab" * 32, parts={})
    card = adapter_card(replace(FACTS, base=base, hub_id=None))
    assert "base_model" not in front(card)
    assert "`adapter_config.json` names the base by that folder" in card
    assert "from_pretrained('/home/me/small', id2label" in card
    named = adapter_card(replace(FACTS, base=base, hub_id="org/small"))
    assert front(named)["base_model"] == "org/small"
    assert "/home/me" not in named


def test_new_tokens_need_room():
    card = adapter_card(replace(FACTS, new_tokens=("<a>",)))
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert code.index("resize_token_embeddings") < code.index("PeftModel.from_pretrained")
    assert "resize" not in adapter_card(FACTS)


def test_a_merged_models_card():
    card = merged_card(FACTS, dtype="bfloat16", difference=3.2e-6)
    assert front(card)["base_model_relation"] == "finetune"
    assert front(card)["library_name"] == "transformers"
    assert "to 3e-06 of the largest. Then the numbers were rounded to bfloat16." in card
    assert "quantised" not in card
    quantised = merged_card(replace(FACTS, quantization="nf4"), dtype="float32", difference=0.0)
    assert "rounded" not in quantised
    assert "trained on the base quantised to nf4, and merged into the base as it is" in quantised


def test_a_gguf_files_card():
    card = gguf_card(
        replace(FACTS, task="causal_lm"), file="a-q8_0.gguf", outtype="q8_0", difference=0.0
    )
    assert front(card)["base_model_relation"] == "quantized"
    assert "llama-cli -m a-q8_0.gguf" in card
    assert "llama.cpp's converter then wrote it as q8_0" in card


def test_what_is_not_known_is_said():
    card = adapter_card(replace(FACTS, rows=None, before={}, after={}))
    assert "None were measured." in card
    assert "Its numbers were not at hand" in card
    only_before = adapter_card(replace(FACTS, after={}))
    assert "| accuracy | 0.5000 | – |" in only_before
    assert "At this step it was not measured." in only_before
