"""Merging: every kind gives the logits of base and adapter, and what is written opens alone."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from adapters.attach import attach
from adapters.attached import trainable
from adapters.base import load_base
from adapters.merge import Merged, check_mergeable, merge, stored, write
from recipes.adapter import Adapter, Full, Lora, VirtualTokens
from recipes.errors import AdapterError, BaseModelError, CheckpointError
from support import tiny
from support.adapters import ADAPTERS

PROMPTS = [name for name, adapter in ADAPTERS.items() if isinstance(adapter, VirtualTokens)]
MERGED = [name for name in ADAPTERS if name not in PROMPTS]
ROWS = [list(range(6, 16)), list(range(40, 60))]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.make_llama(tmp_path_factory.mktemp("bases") / "llama")
    (folder / "generation_config.json").write_text('{"eos_token_id": 2, "temperature": 0.3}')
    return folder


def make_adapter(base: Path, folder: Path, adapter: Adapter) -> Path:
    """An adapter as checkpoints hold it, whose every number differs from where it began."""
    loaded = load_base(base, "causal_lm", torch.float32, "sdpa")
    attached = attach(loaded, adapter, task="causal_lm", seed=1, steps=10)
    generator = torch.Generator().manual_seed(2)
    moved = {
        name: parameter.detach() + 0.05 * torch.randn(parameter.shape, generator=generator)
        for name, parameter in trainable(attached.model).items()
    }
    attached.config.save_pretrained(str(folder))
    saved = {name: tensor.contiguous() for name, tensor in attached.saved(moved).items()}
    save_file(saved, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(base, tmp_path_factory.mktemp("adapters") / "lora", Lora(r=4))


def merged_of(base: Path, adapter: Path) -> Merged:
    return merge(base, adapter, task="causal_lm", labels=(), rows=ROWS)


def write_to(folder: Path, merged: Merged, base: Path, dtype: str, shard: str = "5GB") -> Path:
    folder.mkdir()
    write(merged, folder, base=base, task="causal_lm", dtype=dtype, shard=shard)
    return folder


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=torch.tensor(ROWS[1:])).logits


@torch.no_grad()
def logits_of_both(base: Path, adapter: Path) -> torch.Tensor:
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return logits(peft.PeftModel.from_pretrained(plain, str(adapter)).eval())


@pytest.mark.parametrize("name", MERGED)
def test_every_kind_is_merged_to_the_same_logits(base: Path, tmp_path: Path, name: str):
    adapter = make_adapter(base, tmp_path / "adapter", ADAPTERS[name])
    untrained = logits(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))
    merged = merged_of(base, adapter)
    assert merged.difference < 1e-4
    torch.testing.assert_close(
        logits(merged.model), logits_of_both(base, adapter), rtol=1e-4, atol=1e-4
    )
    assert (logits(merged.model) - untrained).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("dtype", "near"), [("float32", 1e-4), ("bfloat16", 0.2), ("float16", 0.05)]
)
def test_what_is_written_opens_alone(
    base: Path, lora: Path, tmp_path: Path, dtype: str, near: float
):
    folder = write_to(tmp_path / dtype, merged_of(base, lora), base, dtype, shard="200KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    opened = AutoModelForCausalLM.from_pretrained(folder)
    assert opened.dtype == getattr(torch, dtype)
    assert opened.config.use_cache
    expected = logits_of_both(base, lora)
    assert (logits(opened).float() - expected).abs().max() < near
    assert (folder / "generation_config.json").read_text() == (
        base / "generation_config.json"
    ).read_text()
    modes = {file.stat().st_mode for file in folder.iterdir()}
    assert len(modes) == 1, "some files cannot be read by those who read the others"


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that has one matrix at both of its ends."""
    base = tiny.make_llama(tmp_path_factory.mktemp("bases") / "tied")
    model = AutoModelForCausalLM.from_pretrained(base)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(base)
    return base


@pytest.mark.parametrize(
    ("adapter", "stays"), [(Lora(r=4, modules_to_save=["lm_head"]), False), (Full(), True)]
)
def test_a_matrix_at_both_ends(tied: Path, tmp_path: Path, adapter: Adapter, stays: bool):
    """It is one still if training left it one."""
    saved = make_adapter(tied, tmp_path / "adapter", adapter)
    folder = write_to(tmp_path / "merged", merged_of(tied, saved), tied, "float32")
    opened = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(logits(opened), logits_of_both(tied, saved), rtol=1e-4, atol=1e-4)
    assert opened.config.tie_word_embeddings == stays
    assert ("lm_head.weight" in load_file(folder / "model.safetensors")) != stays


def test_numbers_too_large_for_float16(base: Path, lora: Path, tmp_path: Path):
    merged = merged_of(base, lora)
    with torch.no_grad():
        merged.model.get_input_embeddings().weight[3, 3] = 1e6
    with pytest.raises(AdapterError, match=r"--dtype float16: model\.embed_tokens\.weight has num"):
        write_to(tmp_path / "half", merged, base, "float16")


def test_a_merge_that_changes_the_logits_is_refused(
    base: Path, lora: Path, monkeypatch: pytest.MonkeyPatch
):
    def only_unload(model: peft.PeftModel, **_: object) -> torch.nn.Module:
        return model.unload()

    monkeypatch.setattr(peft.PeftModel, "merge_and_unload", only_unload, raising=False)
    with pytest.raises(AdapterError, match=r"gives other logits.*Export it with --adapter"):
        merged_of(base, lora)


def test_what_does_not_read_back_is_refused(
    base: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save = PreTrainedModel.save_pretrained

    def save_badly(model: PreTrainedModel, folder: Path, **options: object) -> None:
        save(model, folder, **options)
        file = folder / "model.safetensors"
        tensors = load_file(file)
        tensors["model.norm.weight"][0] += 1
        save_file(tensors, file, metadata={"format": "pt"})

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", save_badly)
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight does not read back"):
        write_to(tmp_path / "merged", merged_of(base, lora), base, "float32")


@pytest.mark.parametrize("name", PROMPTS)
def test_virtual_tokens_have_no_merge(base: Path, tmp_path: Path, name: str):
    adapter = make_adapter(base, tmp_path / "adapter", ADAPTERS[name])
    with pytest.raises(AdapterError, match=r"_TUNING is no change of weights but something"):
        check_mergeable(adapter, base)


def test_a_base_of_quantised_files_is_refused(base: Path, lora: Path, tmp_path: Path):
    config = json.loads((base / "config.json").read_text()) | {"quantization_config": {"bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelError, match="its own files are quantised"):
        check_mergeable(lora, tmp_path)


def test_the_dtype_of_a_base_is_that_of_most_of_its_numbers(tmp_path: Path):
    many, few = torch.zeros(10, 10), torch.zeros(3)
    save_file({"a": many.bfloat16(), "b": few}, tmp_path / "model.safetensors")
    kept = stored(tmp_path)
    assert kept.numbers == 103
    assert kept.default_dtype(tmp_path) == "bfloat16"
    save_file({"a": many.to(torch.float8_e4m3fn), "b": few}, tmp_path / "model.safetensors")
    with pytest.raises(BaseModelError, match=r"as F8_E4M3\. Say how to write them: --dtype"):
        stored(tmp_path).default_dtype(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").write_text('{"torch_dtype": "float16"}')
    assert stored(tmp_path).default_dtype(tmp_path) == "float16"
