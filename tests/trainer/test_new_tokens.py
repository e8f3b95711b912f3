"""Tokens that the base does not have: their embeddings are trained and saved with the tokenizer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters.base_ref import base_ref
from adapters.checkpoint_folder import folder_of
from adapters.merge import merge
from adapters.proof import ask
from adapters.tokenizer import load_tokenizer, saved_template
from launcher.plan.adapter_shape import adapter_shape
from launcher.plan.base_shape import read_base_shape
from recipes.adapter import Ia3, Lora
from recipes.base import Base
from recipes.checkpoint import Checkpoint
from recipes.recipe import Recipe, all_problems
from recipes.zero import Zero
from support import jobs, tiny
from support.ranks import run_ranks
from trainer.opened import OpenedBase
from trainer.opening import Opening

# More than the base's embedding has rows for.
NEW = tuple(f"<new_{number}>" for number in range(30))
IDS = (6, 7, 106, 120, 135, 8, 9)
TEMPLATE = "{% for m in messages %}{{ m.role }} says: {{ m.content }} <|end|>\n{% endfor %}"
CPU = torch.device("cpu")


def recipe_of(stage: int = 0, **adapter: object) -> Recipe:
    return jobs.recipe(
        base=Base(source="/tiny", dtype="float32", new_tokens=list(NEW)),
        adapter=Lora(r=4, alpha=8, train_tokens=["w3"], **adapter),  # type: ignore[arg-type]
        zero=Zero(stage=stage),
        # The first is proven in a fresh process.
        checkpoint=Checkpoint(every_steps=3, keep=5, prove=stage == 0),
    )


@pytest.fixture(scope="module")
def runs(folders: Path) -> dict[int, dict]:
    """Samples of which every second token is a new one."""
    made = []
    for ids, labels in tiny.samples(40):
        random = np.random.default_rng(len(made))
        fresh = random.integers(106, 136, size=len(ids)).tolist()
        mixed = [new if n % 2 else old for n, (old, new) in enumerate(zip(ids, fresh, strict=True))]
        kept = [token if label >= 0 else label for token, label in zip(mixed, labels, strict=True)]
        made.append((mixed, kept))
    rows = [tiny.row([sample], number) for number, sample in enumerate(made)]
    tiny.write_prepared(folders / "with_new", rows)
    (folders / "own.jinja").write_text(TEMPLATE)
    return run_ranks(2, _train, folders)


def _train(folders: Path) -> dict[int, dict]:
    found = {}
    chosen = {stage: recipe_of(stage) for stage in (0, 2)}
    own = dataclasses.replace(chosen[2].data, chat_template=str(folders / "own.jinja"))
    chosen[2] = dataclasses.replace(chosen[2], data=own)
    for stage in (0, 2):
        name = f"new_tokens_{stage}"
        found[stage] = jobs.train(folders, name, chosen[stage], prepared="with_new")
    half = folder_of(folders / "new_tokens_0" / "checkpoints", 3)
    again = jobs.train(folders, "new_again", chosen[0], prepared="with_new", resume_from=half)
    assert again["losses"] == found[0]["losses"][3:]
    return found


def test_they_learn_the_same_under_other_stages(runs: dict):
    assert runs[0]["losses"][-1] < runs[0]["losses"][0]
    assert runs[2]["losses"] == pytest.approx(runs[0]["losses"], rel=1e-4)


def test_plain_peft_opens_it_on_a_base_with_room(folders: Path, runs: dict):
    adapter = Path(runs[0]["checkpoint"]) / "adapter"
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    assert tokenizer.convert_tokens_to_ids(list(NEW)) == list(range(106, 136))
    base = AutoModelForCausalLM.from_pretrained(folders / "llama", dtype=torch.float32)
    base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    opened = OpenedBase(
        Opening(
            base=recipe_of().base,
            folder=folders / "llama",
            ref=base_ref(str(folders / "llama"), None, folders / "llama"),
            task="causal_lm",
        ),
        CPU,
    )
    opened.add("new", Path(runs[0]["checkpoint"]))
    with torch.no_grad(), opened.by("new") as ours:
        logits = ask(ours, IDS, CPU, "causal_lm")
        torch.testing.assert_close(ask(model, IDS, CPU, "causal_lm"), logits, rtol=1e-4, atol=1e-4)
    assert len(opened.tokenizer) == 136


def test_a_recipe_s_own_chat_template_lies_with_the_adapter(runs: dict):
    adapters = [Path(runs[stage]["checkpoint"]) / "adapter" for stage in (0, 2)]
    assert saved_template(adapters[0]) == tiny.CHAT_TEMPLATE
    assert saved_template(adapters[1]) == TEMPLATE
    assert AutoTokenizer.from_pretrained(adapters[1]).chat_template == TEMPLATE


def test_it_merges_and_is_planned(folders: Path, runs: dict):
    adapter = Path(runs[0]["checkpoint"]) / "adapter"
    merged = merge(
        folders / "llama",
        adapter,
        task="causal_lm",
        labels=[],
        multi_label=False,
        rows=[IDS],
        new_tokens=NEW,
    )
    assert merged.difference <= 1e-4
    assert merged.model.get_input_embeddings().num_embeddings == 136
    shape = read_base_shape(folders / "llama", task="causal_lm", num_labels=2)
    planned = adapter_shape(shape, recipe_of().adapter, NEW)
    saved = load_file(adapter / "adapter_model.safetensors")
    assert planned.parameters == sum(tensor.numel() for tensor in saved.values())


def test_a_tokenizer_keeps_the_tokens_it_has(folders: Path):
    told = load_tokenizer(folders / "llama", ["w3", "<new_0>"])
    assert told.convert_tokens_to_ids(["w3", "<new_0>"]) == [9, 106]


def test_who_does_not_train_them_may_not_add_any():
    [problem] = all_problems(dataclasses.replace(recipe_of(), adapter=Ia3()))
    assert problem.path == "base.new_tokens"
    assert "adapter.kind = ia3 does not train their embeddings" in problem.message
