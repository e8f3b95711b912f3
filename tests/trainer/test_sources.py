"""Losses of each source: exact whatever the packing and the number of workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from recipes.data import Data, Source
from recipes.evaluate import Evaluate
from support import jobs, tiny
from support.ranks import run_ranks
from trainer.batch import collate
from trainer.evaluation import Scored, scores, scores_by_source
from trainer.kernels import Kernels
from trainer.loss import losses_of, means_by_name, sums_by_source

PLAIN = Kernels(attention="sdpa", fused=False, fused_loss=False)
NAMES = ["reviews", "letters", "poems"]


@torch.no_grad()
def test_what_each_source_loses_in_packed_rows(folders: Path, tmp_path: Path):
    made = tiny.samples(6)
    sources = [2, 0, 0, 2, 0, 2]
    packs = [[0, 1, 2], [3], [4, 5]]
    split = tiny.split_of(
        tmp_path / "packed",
        [
            tiny.row([made[i] for i in pack], pack[0]) | {"sources": [sources[i] for i in pack]}
            for pack in packs
        ],
    )
    model = AutoModelForCausalLM.from_pretrained(folders / "llama", dtype=torch.float32).eval()
    batch = collate([split[row] for row in range(3)], pad_token_id=0)
    losses, _ = losses_of(model, batch, task="causal_lm", kernels=PLAIN)
    found = sums_by_source(losses, batch, len(NAMES)).tolist()
    expected = [0.0, 0.0, 0.0]
    counts = [0, 0, 0]
    for (ids, labels), source in zip(made, sources, strict=True):
        tokens = torch.tensor([ids])
        logits = model(input_ids=tokens).logits[0, :-1]
        target = torch.tensor(labels[1:])
        expected[source] += torch.nn.functional.cross_entropy(
            logits, target, ignore_index=-100, reduction="sum"
        ).item()
        counts[source] += int((target != -100).sum())
    assert found[0] == pytest.approx(expected, rel=1e-5)
    assert found[1] == counts
    assert found[1][1] == 0


@pytest.fixture(scope="module")
def mixed(folders: Path) -> Path:
    made = tiny.samples(60, seed=5)
    rows = [
        tiny.row(made[i : i + 2], i) | {"sources": [i % 3, (i + 1) % 3 // 2]}
        for i in range(0, 60, 2)
    ]
    return tiny.write_prepared(folders / "mixed", rows[:20], rows[20:], mixture=NAMES)


def _train(folders: Path, label: str) -> dict:
    data = Data(train=[Source(path=f"/{name}.jsonl") for name in NAMES])
    chosen = jobs.recipe(data=data, evaluate=Evaluate(generate=0, before=False))
    return jobs.train(folders, label, chosen, prepared="mixed")


def test_losses_by_source_do_not_depend_on_the_workers(folders: Path, mixed: Path):
    one = run_ranks(1, _train, folders, "mixed1")
    three = run_ranks(3, _train, folders, "mixed3")  # some compute one that weighs nothing
    for ours, theirs in zip(one["lines"], three["lines"], strict=True):
        assert set(ours["sources"]) == set(NAMES)
        assert theirs["sources"] == pytest.approx(ours["sources"], rel=1e-4)
        assert min(ours["sources"].values()) <= ours["loss"] <= max(ours["sources"].values())
    assert three["after"]["sources"]["poems"] == pytest.approx(
        one["after"]["sources"]["poems"], rel=1e-4
    )
    manifest = json.loads((mixed / "manifest.json").read_text())
    after = one["after"]["sources"]
    assert (
        sum(about["samples"] for about in after.values())
        == (manifest["splits"]["held_out"]["samples"])
    )


def scored(index: int, source: int, loss: float, choice: int, right: int) -> Scored:
    return Scored(
        index=index,
        samples=(index // 2,),
        sources=(source,),
        loss=loss,
        supervised=2,
        parts={source: (loss, 2)},
        choice=choice,
        right=(right,),
        predicted=(),
    )


def test_choices_are_scored_by_source_too():
    rows = [
        scored(0, 0, 1.0, 0, 0),  # right, and likelier than the other
        scored(1, 0, 2.0, 1, 0),
        scored(2, 2, 3.0, 0, 1),  # likelier, but wrong
        scored(3, 2, 4.0, 1, 1),
    ]
    whole = scores(rows, is_causal=True, multi_label=False)
    assert (whole["rows"], whole["loss"], whole["accuracy"]) == (2.0, 5.0 / 4, 0.5)
    found = scores_by_source(rows, NAMES, multi_label=False)
    assert {name: (about["loss"], about["accuracy"]) for name, about in found.items()} == {
        "reviews": (0.5, 1.0),
        "poems": (2.0, 0.0),
    }
    assert found["reviews"]["samples"] == 1.0
    assert scores_by_source(rows[:2], NAMES, multi_label=False) == {}


def test_sources_of_one_name_are_told_together():
    """As their counts are: of two entries that are called `web` none takes the other's place."""
    names = ["web", "code", "web", "none"]
    assert means_by_name(names, [3.0, 8.0, 5.0, 0.0], [1.0, 2.0, 3.0, 0.0]) == {
        "web": 2.0,
        "code": 4.0,
    }
    rows = [
        scored(0, 0, 1.0, 0, 0),
        scored(1, 0, 2.0, 1, 0),
        scored(2, 1, 3.0, 0, 1),
        scored(3, 1, 4.0, 1, 1),
        scored(4, 2, 9.0, 0, 0),
        scored(5, 2, 3.0, 1, 0),
    ]
    found = scores_by_source(rows, names, multi_label=False)
    assert {name: (about["samples"], about["loss"]) for name, about in found.items()} == {
        "web": (2.0, 2.5),
        "code": (1.0, 2.0),
    }
    assert found["web"]["accuracy"] == 0.5
    assert scores_by_source(rows, ["web"] * 3, multi_label=False) == {}
