"""A base that is a GGUF file: converted once, exactly, and from then on a folder like any other."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from adapters.base import load_base
from adapters.base_ref import base_ref, locate
from adapters.tokenizer import chat_templates, load_tokenizer
from recipes.base import Base
from recipes.errors import BaseModelError, StorageError
from support.tiny_gguf import write_gguf


@pytest.fixture(scope="module")
def gguf(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(llama, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def find(source: Path, cache: Path, *, told: list[str] | None = None) -> Path:
    heard = [] if told is None else told
    return locate(Base(source=str(source)), cache, tell=heard.append)


def test_it_becomes_the_model_it_was_made_of(llama: Path, gguf: Path, cache: Path) -> None:
    told: list[str] = []
    folder = find(gguf, cache, told=told)
    assert folder.parent == cache / "converted"
    assert [line.split(",")[0] for line in told] == ["Converting tiny.gguf to safetensors"]
    model = load_base(folder, "causal_lm", torch.float32, "sdpa").model
    plain = load_base(llama, "causal_lm", torch.float32, "sdpa").model
    ids = torch.arange(20)[None]
    assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)
    assert "quantization_config" not in model.config.to_dict()
    assert chat_templates(folder)
    tokenizer = load_tokenizer(folder)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "w1 w0"}], tokenize=False)
    assert chat == "<|user|> w1 w0 <|end|> "
    assert tokenizer.decode(tokenizer("w1 w0")["input_ids"]) == "w1 w0"
    assert {file.stat().st_mode & 0o444 for file in folder.iterdir()} == {0o444}


def test_it_is_converted_once_wherever_it_lies(gguf: Path, cache: Path, tmp_path: Path) -> None:
    folder = find(gguf, cache)
    moved = tmp_path / "holds just one" / "renamed.gguf"
    moved.parent.mkdir()
    shutil.copy(gguf, moved)
    told: list[str] = []
    assert find(moved, cache, told=told) == folder
    assert find(moved.parent, cache, told=told) == folder
    assert told == []
    assert base_ref(str(moved), None, folder) == base_ref(str(gguf), None, folder)


def test_few_bits_become_bfloat16(llama: Path, tmp_path: Path) -> None:
    """By gguf's own arithmetic."""
    folder = find(write_gguf(llama, tmp_path / "q8.gguf", quantization="Q8_0"), tmp_path)
    found = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    kind = GGMLQuantizationType.Q8_0
    for name, tensor in LlamaForCausalLM.from_pretrained(llama).state_dict().items():
        expected = tensor
        if tensor.ndim > 1:
            expected = torch.from_numpy(dequantize(quantize(tensor.numpy(), kind), kind))
        assert torch.equal(found[name], expected.bfloat16()), name


def test_two_at_the_same_moment_convert_once(gguf: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(_convert, [(gguf, tmp_path)] * 2, chunksize=1)
    assert sorted(len(told) for _, told in found) == [0, 1]
    assert len({folder for folder, _ in found}) == 1
    assert len(list((tmp_path / "converted").iterdir())) == 1


def _convert(gguf: Path, cache: Path) -> tuple[Path, list[str]]:
    told: list[str] = []
    return find(gguf, cache, told=told), told


def test_planning_converts_nothing(gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"has not been converted .* `shoal prepare`"):
        locate(Base(source=str(gguf)), tmp_path, download=False)
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_it_says_what_to_install(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BaseModelError, match="not installed: pip install gguf"):
        find(gguf, tmp_path)


def test_a_file_that_is_no_base_leaves_nothing(llama: Path, gguf: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(gguf.read_bytes()[:-1000])
    lacking = write_gguf(llama, tmp_path / "lacking.gguf", without="model.norm.weight")
    other = tmp_path / "other.gguf"
    other.write_text("no model at all")
    cache = tmp_path / "cache"
    for file, said in (
        (torn, "is no GGUF file that can be read"),
        (other, "is no GGUF file that can be read"),
        (lacking, "it holds no model.norm.weight"),
    ):
        with pytest.raises(BaseModelError, match=said):
            find(file, cache)
    assert list((cache / "converted").iterdir()) == []


def test_a_full_disk_leaves_nothing(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    def full(*args: object, **kwargs: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(StorageError, match="cannot be written: I/O error: No space"):
        find(gguf, tmp_path)
    assert list((tmp_path / "converted").iterdir()) == []


def test_which_of_several_has_to_be_said(gguf: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(gguf, tmp_path / name)
    with pytest.raises(BaseModelError, match=r"several GGUF files: a\.gguf, b\.gguf\. Name one"):
        find(tmp_path, tmp_path)
    with pytest.raises(BaseModelError, match=r"no such file\. Did you mean .*/a\.gguf\?"):
        find(tmp_path / "aa.gguf", tmp_path)
