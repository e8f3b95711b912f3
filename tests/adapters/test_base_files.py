"""What tells two bases apart: configuration, weights and tokenizer, each by its own digest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters import base_files
from adapters.base_ref import BaseRef, base_ref
from adapters.checkpoint_folder import MANIFEST, Origin, Position, check_base, write_manifest
from recipes.errors import CheckpointError


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that may be changed."""
    copy = tmp_path / "models" / "llama"
    shutil.copytree(llama, copy)
    return copy


@pytest.fixture
def trained(folder: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes a checkpoint of the base as it is now."""

    def make() -> Path:
        checkpoint = tmp_path / "checkpoint"
        checkpoint.mkdir()
        origin = Origin(base=ref(folder), recipe_digest="r", data_digest="d", dtype="float32")
        write_manifest(checkpoint, origin, Position(step=1))
        return checkpoint

    return make


def ref(folder: Path) -> BaseRef:
    return base_ref(str(folder), None, folder)


def edit_json(file: Path, key: str, value: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))


def flip_last_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def leave_template_for_tools(base: Path) -> None:
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "configuration": (
        lambda base: edit_json(base / "config.json", "rope_theta", 1.0),
        "configuration",
    ),
    "weights": (lambda base: flip_last_bit(base / "model.safetensors"), "weights"),
    "more weights": (lambda base: (base / "extra.safetensors").touch(), "weights"),
    "tokenizer": (lambda base: edit_json(base / "tokenizer.json", "version", "2"), "tokenizer"),
    "its settings": (
        lambda base: edit_json(base / "tokenizer_config.json", "eos_token", "<pad>"),
        "tokenizer",
    ),
    "special tokens": (lambda base: (base / "special_tokens_map.json").touch(), "tokenizer"),
    "merges": (lambda base: (base / "merges.txt").touch(), "tokenizer"),
    "sentencepiece": (lambda base: (base / "spiece.model").touch(), "tokenizer"),
    "a template for tools": (leave_template_for_tools, "tokenizer"),
    "no template": (lambda base: (base / "chat_template.jinja").unlink(), "tokenizer"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_part_is_another_base(
    folder: Path, trained: Callable[[], Path], change: str
) -> None:
    checkpoint = trained()
    check_base(checkpoint, ref(folder))
    how, part = CHANGES[change]
    how(folder)
    with pytest.raises(CheckpointError, match=rf"another {part}\. Name the same base"):
        check_base(checkpoint, ref(folder))


def test_all_parts_that_differ_are_named(folder: Path, trained: Callable[[], Path]) -> None:
    checkpoint = trained()
    flip_last_bit(folder / "model.safetensors")
    flip_last_bit(folder / "chat_template.jinja")
    with pytest.raises(CheckpointError, match="another weights, tokenizer"):
        check_base(checkpoint, ref(folder))


def test_what_is_no_part_of_it_changes_nothing(folder: Path, trained: Callable[[], Path]) -> None:
    checkpoint = trained()
    (folder / "README.md").write_text("Read me.")
    (folder / "pytorch_model.bin").write_text("pickles beside safetensors are not read")
    moved = folder.rename(folder.with_name("moved"))
    check_base(checkpoint, ref(moved))


def test_a_checkpoint_of_before_the_tokenizer_counted_is_refused(
    folder: Path, trained: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"source": "/old", "revision": None, "digest": "0" * 64}
    monkeypatch.setattr("adapters.checkpoint_folder.asdict", lambda value: {"base": old})
    checkpoint = trained()
    assert json.loads((checkpoint / MANIFEST).read_text())["base"] == old
    with pytest.raises(CheckpointError, match=r"did not look at the tokenizer of /old.*--fork"):
        check_base(checkpoint, ref(folder))


def test_of_a_large_file_a_sample_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its begin, its end and between, and never more than the sample."""
    monkeypatch.setattr(base_files, "_WHOLE_BYTES", 10_000)
    monkeypatch.setattr(base_files, "_PIECE_BYTES", 100)
    weights = folder / "model.safetensors"
    pieces = list(base_files._pieces(weights))
    assert sum(map(len, pieces)) == 3200
    content = weights.read_bytes()
    assert pieces[0] == content[:100] and pieces[-1] == content[-100:]
    before = ref(folder)
    flip_last_bit(weights)
    assert ref(folder).parts["weights"] != before.parts["weights"]
    assert ref(folder).parts["tokenizer"] == before.parts["tokenizer"]
