"""The base on a node's own disk: copied once a node, and nothing but the base."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from adapters.base_copy import on_this_node
from adapters.base_files import files_of
from adapters.base_ref import BaseRef, base_ref, locate
from recipes.base import Base
from recipes.errors import BaseModelError, StorageError


def be_a_rank(node: int, folder: Path, base: BaseRef, disks: Path) -> tuple[str, int]:
    os.environ["NODE_DISK"] = str(disks / f"n{node}")
    local = on_this_node(folder, base, "$NODE_DISK/scratch")
    return str(local.folder), local.copied_bytes


@pytest.fixture
def base(llama: Path) -> BaseRef:
    return base_ref(str(llama), None, llama)


def test_each_node_copies_once(llama: Path, base: BaseRef, tmp_path: Path):
    """Four ranks on each of two nodes, at the same moment."""
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        jobs = [(rank // 4, llama, base, tmp_path) for rank in range(8)]
        found = pool.starmap(be_a_rank, jobs, chunksize=1)
    whole = sum(files_of(llama).values())
    assert sorted(size for _, size in found) == [0] * 6 + [whole] * 2
    folders = {Path(folder) for folder, _ in found}
    assert {folder.parent for folder in folders} == {tmp_path / f"n{n}" / "scratch" for n in (0, 1)}
    for folder in folders:
        assert all((folder / n).read_bytes() == (llama / n).read_bytes() for n in files_of(llama))
        left = {entry.name for entry in folder.parent.iterdir()}
        assert left == {folder.name, f"{folder.name}.lock"}


def test_a_copy_has_the_template_for_tools(llama: Path, tmp_path: Path):
    base = tmp_path / "base"
    shutil.copytree(llama, base)
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tool_use.jinja").write_text("for {{ tools }}")
    copy = on_this_node(base, base_ref(str(base), None, base), str(tmp_path)).folder
    templates = AutoTokenizer.from_pretrained(copy).chat_template
    assert templates["tool_use"] == "for {{ tools }}"
    assert on_this_node(base, base_ref(str(base), None, base), str(tmp_path)).copied_bytes == 0


def test_a_copy_that_differs_is_made_anew(llama: Path, base: BaseRef, tmp_path: Path):
    first = on_this_node(llama, base, str(tmp_path))
    assert on_this_node(llama, base, str(tmp_path)).copied_bytes == 0
    weights = first.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    killed = tmp_path / f".{first.folder.name}.12345678"
    killed.mkdir()
    assert on_this_node(llama, base, str(tmp_path)).copied_bytes == first.copied_bytes
    assert weights.read_bytes() == (llama / "model.safetensors").read_bytes()
    assert not killed.exists()


def test_another_base_than_the_run_began_with_is_refused(llama: Path, tmp_path: Path):
    other = BaseRef(source="x", revision=None, digest="0" * 64, parts={})
    with pytest.raises(BaseModelError, match="is not the base that the run began with"):
        on_this_node(llama, other, str(tmp_path))
    assert [entry.suffix for entry in tmp_path.iterdir()] == [".lock"]


def test_a_disk_without_room_is_told(
    llama: Path, base: BaseRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    needed = f"{sum(files_of(llama).values()):,}"
    with pytest.raises(StorageError, match=f"room for 1,000 bytes, and the base takes {needed}"):
        on_this_node(llama, base, str(tmp_path))


@pytest.mark.parametrize(
    ("copy_to", "said"),
    [("$NO_SUCH_DISK/x", "NO_SUCH_DISK is not set on"), ("/proc/x", "cannot be used on")],
)
def test_a_place_that_is_none_is_told(llama: Path, base: BaseRef, copy_to: str, said: str):
    with pytest.raises(StorageError, match=said):
        on_this_node(llama, base, copy_to)


def test_weights_that_an_index_promises_must_be_there(llama: Path, tmp_path: Path):
    cut_off = tmp_path / "llama"
    shutil.copytree(llama, cut_off)
    (cut_off / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    with pytest.raises(BaseModelError, match=r"index names: model-00002-of-00002\.safetensors"):
        locate(Base(source=str(cut_off)), tmp_path)
