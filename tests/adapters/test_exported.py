"""Exported folders: what may be copied into them, and what may lie in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.base_ref import BaseRef
from adapters.checkpoint_folder import check_base, read_manifest, read_position, verify
from adapters.exported import (
    adapter_files,
    check_adapter,
    copy_adapter,
    copy_licences,
    copy_tokenizer,
    is_export,
    kind_of,
    name_base,
    seal,
    verify_export,
)
from recipes.errors import CheckpointError
from support.checkpoints import make_checkpoint, reseal_files

CONFIG = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "/models/small"})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = make_checkpoint(tmp_path / "run", 7, scores={"loss": 1.5})
    (folder / "adapter" / "adapter_config.json").write_text(CONFIG)
    return reseal_files(folder)


@pytest.fixture
def exported(checkpoint: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "exported"
    folder.mkdir()
    copy_adapter(checkpoint, folder)
    (folder / "recipe.yaml").touch()
    (folder / "README.md").write_text("a card")
    seal(folder, checkpoint, scores={"loss": 1.25})
    return folder


def test_an_export_is_sealed_as_a_checkpoint_is(exported: Path, checkpoint: Path):
    manifest = verify(exported)
    assert sorted(manifest["files"]) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "recipe.yaml",
    ]
    theirs = read_manifest(checkpoint)
    for said in ("step", "base", "recipe_digest", "data_digest", "dtype", "recent_losses"):
        assert manifest[said] == theirs[said]
    assert read_position(exported).scores == {"loss": 1.25}
    check_base(exported, BaseRef(source="moved", revision=None, digest="0" * 64, parts={}))
    with pytest.raises(CheckpointError, match="was trained on base"):
        check_base(exported, BaseRef(source="other", revision=None, digest="1" * 64, parts={}))
    assert is_export(exported)
    assert not is_export(checkpoint)
    assert kind_of(manifest) == "adapter"


@pytest.mark.parametrize("name", ["adapter_model.bin", "evil.py", "more.safetensors", "x.json"])
def test_what_a_library_would_read_must_be_its_own(exported: Path, name: str):
    (exported / name).write_text("of somebody else")
    with pytest.raises(CheckpointError, match=f"{name}: is no part of what was exported"):
        verify_export(exported)


def test_people_write_on_cards_and_add_notes(exported: Path):
    (exported / "README.md").write_text("another card")
    (exported / "NOTES.txt").write_text("notes")
    (exported / ".gitattributes").write_text("*.safetensors filter=lfs")
    assert verify_export(exported)["step"] == 7


def test_a_base_gets_another_name_and_keeps_its_digest(checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "named"
    folder.mkdir()
    copy_adapter(checkpoint, folder)
    name_base(folder, "org/small")
    seal(folder, checkpoint, scores={}, base="org/small")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config == {"peft_type": "LORA", "base_model_name_or_path": "org/small"}
    theirs = read_manifest(checkpoint)["base"]
    assert verify_export(folder)["base"] == {**theirs, "source": "org/small", "revision": None}
    assert theirs["digest"] == "0" * 64


def test_nothing_foreign_and_no_pickle_is_copied(checkpoint: Path):
    foreign = checkpoint / "adapter" / "adapter_model.bin"
    foreign.write_text("of somebody else")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin: is no part of the checkpoint"):
        adapter_files(checkpoint)
    # Also when somebody has put it into the manifest.
    reseal_files(checkpoint)
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin: is a pickle"):
        adapter_files(checkpoint)


def test_an_altered_adapter_is_noticed_and_not_copied(checkpoint: Path, tmp_path: Path):
    check_adapter(checkpoint)
    (checkpoint / "trainer_state" / "state").write_text("altered, and not what is exported")
    check_adapter(checkpoint)
    weights = checkpoint / "adapter" / "adapter_model.safetensors"
    weights.write_text("altered")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: differs from what was saved"):
        check_adapter(checkpoint)
    with pytest.raises(CheckpointError, match="is not what was saved in"):
        copy_adapter(checkpoint, tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_half_an_adapter_is_none(checkpoint: Path, name: str):
    (checkpoint / "adapter" / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: is missing"):
        adapter_files(checkpoint)
    reseal_files(checkpoint)
    with pytest.raises(CheckpointError, match=f"{name}: is missing"):
        adapter_files(checkpoint)


def test_a_tokenizer_of_its_own_goes_before_the_bases(checkpoint: Path, tmp_path: Path):
    base, folder = tmp_path / "base", tmp_path / "folder"
    base.mkdir()
    folder.mkdir()
    for name in ("tokenizer.json", "chat_template.jinja", "model.safetensors", "LICENSE.txt"):
        (base / name).write_text("of the base")
    (checkpoint / "adapter" / "chat_template.jinja").write_text("of the adapter")
    copy_tokenizer(base, checkpoint, folder)
    copy_licences(base, folder)
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "tokenizer.json": "of the base",
        "chat_template.jinja": "of the adapter",
        "LICENSE.txt": "of the base",
    }
