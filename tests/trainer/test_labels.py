"""Texts with one label, with several, and in pairs: losses are those of transformers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from adapters.base import load_base
from recipes.adapter import Lora
from recipes.evaluate import Evaluate
from support import jobs, tiny
from support.ranks import run_ranks
from trainer.batch import collate
from trainer.kernels import Kernels
from trainer.label_scores import label_set_scores
from trainer.loss import labels_given, losses_of
from trainer.shards import Row

PLAIN = Kernels(attention="sdpa", fused=False, fused_loss=False)
LABELS = ["plot", "acting", "music"]
TASK = "sequence_classification"
PAIR = [0, 0, 0, 0, 1, 1]


@pytest.fixture(scope="module")
def several(folders: Path) -> Path:
    """Prepared rows whose label set is what their first tokens say; some have none."""
    made = tiny.samples(60, seed=3)
    rows = [
        tiny.row([(ids, [])], number, supervised=1)
        | {"label_set": [k for k in range(3) if ids[k] % 2], "sources": [number % 2]}
        for number, (ids, _) in enumerate(made)
    ]
    more = {"multi_label": True, "mixture": ["reviews", "letters"]}
    return tiny.write_prepared(folders / "several", rows[:40], rows[40:], LABELS, **more)


def rows_of(folder: Path, pairs: bool = False) -> list[Row]:
    made = tiny.samples(4)
    rows = [
        tiny.row([(ids[:6], [])], number, supervised=1, label=number % 3)
        | {"label_set": [[0, 2], [], [1], [0, 1, 2]][number]}
        | ({"token_types": PAIR} if pairs and number != 1 else {})
        for number, (ids, _) in enumerate(made)
    ]
    split = tiny.split_of(folder / "rows", rows)
    return [split[index] for index in range(4)]


def loaded(folders: Path, multi_label: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    return load_base(
        folders / "bert", TASK, torch.float32, "eager", labels=LABELS, multi_label=multi_label
    ).model.eval()


def test_the_loss_of_several_labels_is_the_one_of_transformers(folders: Path, tmp_path: Path):
    model = loaded(folders, multi_label=True)
    batch = collate(rows_of(tmp_path), pad_token_id=0)
    wanted = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1.0]])
    with torch.no_grad():
        losses, logits = losses_of(model, batch, task=TASK, kernels=PLAIN)
        theirs = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=wanted
        ).loss
    assert losses.shape == (4, 1)
    assert losses.mean().item() == pytest.approx(theirs.item(), rel=1e-5)
    assert labels_given(model, logits) == [
        tuple(k for k in range(3) if value[k] > 0) for value in logits.tolist()
    ]


def test_the_loss_of_one_label_is_the_one_of_transformers(folders: Path, tmp_path: Path):
    model = loaded(folders, multi_label=False)
    batch = collate(rows_of(tmp_path), pad_token_id=0)
    with torch.no_grad():
        losses, logits = losses_of(model, batch, task=TASK, kernels=PLAIN)
        theirs = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            labels=torch.tensor([0, 1, 2, 0]),
        ).loss
    assert losses.mean().item() == pytest.approx(theirs.item(), rel=1e-5)
    assert labels_given(model, logits) == [(k,) for k in logits.argmax(dim=-1).tolist()]


def test_token_types_reach_the_models_that_know_them(folders: Path, tmp_path: Path):
    model = loaded(folders, multi_label=False)
    batch = collate(rows_of(tmp_path, pairs=True), pad_token_id=0)
    assert batch.token_types is not None
    assert batch.token_types.tolist() == [PAIR, [0] * 6, PAIR, PAIR]
    with torch.no_grad():
        _, logits = losses_of(model, batch, task=TASK, kernels=PLAIN)
        theirs = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            token_type_ids=batch.token_types,
        ).logits
        without = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    torch.testing.assert_close(logits, theirs)
    assert not torch.allclose(logits[0], without[0])
    (tmp_path / "alone").mkdir()
    assert collate(rows_of(tmp_path / "alone"), pad_token_id=0).token_types is None
    small = LlamaConfig(
        vocab_size=128,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=3,
        pad_token_id=0,
    )
    losses, _ = losses_of(LlamaForSequenceClassification(small), batch, task=TASK, kernels=PLAIN)
    assert torch.isfinite(losses).all()


def test_scores_of_several_labels():
    right = [(0, 2), (), (1,), (0, 1)]
    assert label_set_scores(right, right) == {"exact_match": 1.0, "f1": 1.0, "f1_micro": 1.0}
    found = label_set_scores(right, [(0,), (), (2,), (0, 1)])
    # Label 0 is right twice; 1 once, and once missed; 2 once missed, once wrong.
    assert found["exact_match"] == 0.5
    assert found["f1_micro"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))
    assert found["f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert label_set_scores([(), ()], [(), ()])["exact_match"] == 1.0


def _train(folders: Path, label: str) -> dict:
    chosen = dataclasses.replace(
        jobs.recipe(),
        task=TASK,
        adapter=Lora(r=4, alpha=8, targets=["query", "value"]),
        evaluate=Evaluate(generate=0, before=True),
    )
    return jobs.train_stages(folders, label, [0], chosen=chosen, base="bert", prepared="several")[0]


def test_several_labels_are_learnt_alike_by_any_number_of_workers(folders: Path, several: Path):
    one = run_ranks(1, _train, folders, "several1")
    two = run_ranks(2, _train, folders, "several2")
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    assert min(one["losses"]) < one["losses"][0]
    run = folders / "several1_zero0"
    before = json.loads((run / "evaluation" / "before.json").read_text())
    after = one["after"]
    assert set(after["scores"]) == {"rows", "loss", "exact_match", "f1", "f1_micro"}
    assert set(before["sources"]) == {"reviews", "letters"}
    assert [after["sources"][name]["samples"] for name in after["sources"]] == [10.0, 10.0]
    mean = sum(about["loss"] for about in after["sources"].values()) / 2
    assert mean == pytest.approx(after["scores"]["loss"], rel=1e-6)
    lines = [
        json.loads(line)
        for line in (run / "evaluation" / "predictions.jsonl").read_text().splitlines()
    ]
    ids = [tiny.samples(60, seed=3)[line["sample"]][0] for line in lines]
    assert [line["right"] for line in lines] == [
        [name for k, name in enumerate(LABELS) if tokens[k] % 2] for tokens in ids
    ]
    assert all(set(line["predicted"]) <= set(LABELS) for line in lines)
    manifest = json.loads((Path(one["checkpoint"]) / "manifest.json").read_text())
    assert (manifest["labels"], manifest["multi_label"]) == (LABELS, True)


def test_a_classifier_keeps_what_kind_it_is(folders: Path, tmp_path: Path):
    for multi_label, problem in (
        (True, "multi_label_classification"),
        (False, "single_label_classification"),
    ):
        loaded(folders, multi_label).save_pretrained(tmp_path)
        config = AutoModelForSequenceClassification.from_pretrained(tmp_path).config
        assert config.problem_type == problem
        assert config.id2label == dict(enumerate(LABELS))
