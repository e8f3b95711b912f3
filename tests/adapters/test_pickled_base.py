"""Weights that are pickles: refused unless the recipe allows them; then tensors alone are read."""

from __future__ import annotations

import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

from adapters.base import load_base
from adapters.base_ref import locate
from recipes.base import Base
from recipes.errors import BaseModelError


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.file), 0o700)


@pytest.fixture
def pickled(llama: Path, tmp_path: Path) -> Path:
    """The tiny model with its weights as a pickle."""
    folder = tmp_path / "models" / "pickled"
    shutil.copytree(llama, folder)
    state = load_base(llama, "causal_lm", torch.float32, "sdpa").model.state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def test_they_are_refused_with_what_they_can_do(pickled: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BaseModelError, match=r"\(pytorch_model\.bin\), which can run any program"
    ) as e:
        locate(Base(source=str(pickled)), tmp_path)
    assert "base.allow_pickle: true" in str(e.value)
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_base(pickled, "causal_lm", torch.float32, "sdpa")


def test_allowed_they_are_the_same_base(llama: Path, pickled: Path, tmp_path: Path) -> None:
    assert locate(Base(source=str(pickled), allow_pickle=True), tmp_path) == pickled
    model = load_base(pickled, "causal_lm", torch.float32, "sdpa", allow_pickle=True).model
    plain = load_base(llama, "causal_lm", torch.float32, "sdpa").model
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_allowed_they_still_run_nothing(pickled: Path, tmp_path: Path) -> None:
    made = tmp_path / "made by a pickle"
    torch.save({"model.norm.weight": Bomb(made)}, pickled / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match="holds other things than tensors"):
        load_base(pickled, "causal_lm", torch.float32, "sdpa", allow_pickle=True)
    assert not made.exists()


def test_beside_safetensors_they_are_never_read(llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    shutil.copytree(llama, folder)
    (folder / "pytorch_model.bin").write_bytes(b"no pickle at all")
    assert locate(Base(source=str(folder)), tmp_path) == folder
    load_base(folder, "causal_lm", torch.float32, "sdpa", allow_pickle=True)


def test_of_the_hub_they_are_fetched_only_when_allowed(
    pickled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = tmp_path / "fetched"
    fetched.mkdir()

    def download(source: str, *, allow_patterns: list[str], **others: object) -> str:
        assert source == "org/tiny"
        for file in pickled.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, fetched)
        return str(fetched)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(BaseModelError, match=r"holds no weights .*base\.allow_pickle: true"):
        locate(Base(source="org/tiny"), tmp_path)
    assert not (fetched / "pytorch_model.bin").exists()
    assert locate(Base(source="org/tiny", allow_pickle=True), tmp_path) == fetched
    assert (fetched / "pytorch_model.bin").exists()
