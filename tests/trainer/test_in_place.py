"""Training the base itself: tied embeddings, new heads, and what has no place among the targets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from adapters.attach import attach
from adapters.base import load_base
from adapters.proof import ask
from recipes.adapter import Full, LnTuning, Unfreeze
from recipes.checkpoint import Checkpoint
from recipes.errors import AdapterError
from recipes.zero import Zero
from support import jobs, tiny
from support.asked import divide_everything
from support.ranks import run_ranks


def kept(*, prove: bool) -> Checkpoint:
    """With `prove` plain PEFT opens it in a fresh process, and compares."""
    return Checkpoint(every_steps=6, prove=prove)


IDS = tuple(range(6, 26))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tied(folders: Path) -> Path:
    config = Qwen2Config(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folders / "tied")
    tiny.make_tokenizer(folders / "tied")
    return folders / "tied"


def _train(root: Path) -> dict[str, str]:
    divide_everything()
    found = {}
    for stage in (0, 3):
        for name, adapter in (("full", Full()), ("last", Unfreeze(modules_to_save=["lm_head"]))):
            prove = (stage, name) == (3, "full")
            chosen = jobs.recipe(
                adapter=adapter, zero=Zero(stage=stage), checkpoint=kept(prove=prove)
            )
            run = jobs.train(root, f"tied_{name}_{stage}", chosen, base="tied")
            found[f"{name}_{stage}"] = run["checkpoint"]
    for adapter in (Full(), LnTuning()):
        chosen = jobs.recipe(
            task="sequence_classification",
            adapter=adapter,
            checkpoint=kept(prove=adapter == Full()),
            zero=Zero(stage=3),
        )
        name = f"labels_{adapter.kind}"
        run = jobs.train(root, name, chosen, base="bert", prepared="labelled")
        found[name] = run["checkpoint"]
    return found


@pytest.fixture(scope="module")
def runs(folders: Path, tied: Path) -> dict[str, str]:
    return run_ranks(2, _train, folders)


def _logits(model: object, task: str = "causal_lm") -> torch.Tensor:
    with torch.no_grad():
        return ask(model, IDS, CPU, task)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["full", "last"])
def test_a_tied_embedding_is_trained_once_and_merges(tied: Path, runs: dict, name: str):
    def opened(stage: int) -> PeftModel:
        base = AutoModelForCausalLM.from_pretrained(tied, dtype=torch.float32)
        return PeftModel.from_pretrained(
            base, str(Path(runs[f"{name}_{stage}"]) / "adapter")
        ).eval()

    model = opened(0)
    logits = _logits(model)
    torch.testing.assert_close(_logits(opened(3)), logits, rtol=1e-3, atol=1e-3)
    merged = model.merge_and_unload()
    torch.testing.assert_close(_logits(merged), logits, rtol=1e-4, atol=1e-4)
    assert torch.equal(merged.get_input_embeddings().weight, merged.lm_head.weight)


@pytest.mark.parametrize("kind", ["full", "ln_tuning"])
def test_a_new_head_is_trained_with_it(folders: Path, runs: dict, kind: str):
    base = AutoModelForSequenceClassification.from_pretrained(folders / "bert", num_labels=2)
    model = PeftModel.from_pretrained(base, str(Path(runs[f"labels_{kind}"]) / "adapter")).eval()
    logits = _logits(model, "sequence_classification")
    assert logits.shape == (2,)
    merged = model.merge_and_unload()
    torch.testing.assert_close(
        _logits(merged, "sequence_classification"), logits, rtol=1e-4, atol=1e-4
    )


def test_wrong_targets_are_told(folders: Path):
    base = load_base(folders / "llama", "causal_lm", torch.float32, "sdpa")
    wrong = {
        "adapter.targets = down_prj.* Did you mean down_proj": Unfreeze(targets=["down_prj"]),
        "adapter.modules_to_save = embed": Unfreeze(modules_to_save=["embed"]),
        "adapter.last_layers = 9: the base has 3": Unfreeze(last_layers=9),
        "matches no module in the layers": Unfreeze(targets=["norm"], last_layers=1),
    }
    for said, adapter in wrong.items():
        with pytest.raises(AdapterError, match=said):
            attach(base, adapter, task="causal_lm", seed=0, steps=1)
    one = dataclasses.replace(Unfreeze(), targets=["mlp.down_proj"], last_layers=1)
    attached = attach(base, one, task="causal_lm", seed=0, steps=1)
    trained = [name for name, p in attached.model.named_parameters() if p.requires_grad]
    assert trained == ["model.layers.2.mlp.down_proj.weight"]
