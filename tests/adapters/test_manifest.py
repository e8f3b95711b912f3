"""The manifest of a checkpoint knows when it is not what was written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adapters import checkpoint_folder
from adapters.base_ref import BaseRef
from adapters.checkpoint_folder import newest, parse_manifest, read_manifest, reseal
from recipes.errors import CheckpointError
from support.checkpoints import make_checkpoint


def test_any_bit_that_flips_is_noticed(tmp_path: Path):
    written = (make_checkpoint(tmp_path, 7, scores={"loss": 1.5}) / "manifest.json").read_bytes()
    said = parse_manifest(written)
    for place in range(8 * len(written)):
        flipped = bytearray(written)
        flipped[place // 8] ^= 1 << place % 8
        try:
            assert parse_manifest(bytes(flipped)) == said
        except ValueError:
            continue


def test_a_checkpoint_whose_manifest_is_no_text_is_passed_over(tmp_path: Path):
    make_checkpoint(tmp_path, 1)
    bad = make_checkpoint(tmp_path, 2) / "manifest.json"
    bad.write_bytes(bad.read_bytes().replace(b"step", b"st\xe2p"))
    told: list[str] = []
    found = newest(tmp_path / "checkpoints", told.append)
    assert found is not None and found.name == "step_000001"
    assert len(told) == 1 and "step_000002/manifest.json" in told[0]


def test_a_checkpoint_that_is_deleted_while_it_is_read_has_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As `shoal chat` may meet it of a run that goes on and keeps one."""
    first, made = make_checkpoint(tmp_path, 1), make_checkpoint(tmp_path / "aside", 2)
    read = checkpoint_folder.sha256

    def read_late(file: Path) -> str:
        if first.is_dir():
            made.rename(first.with_name(made.name))
            shutil.rmtree(first)
        return read(file)

    monkeypatch.setattr(checkpoint_folder, "sha256", read_late)
    told: list[str] = []
    found = newest(tmp_path / "checkpoints", told.append)
    assert found is not None and found.name == "step_000002"
    assert told == []


def test_what_was_changed_by_hand_is_refused_and_knowingly_is_not(tmp_path: Path):
    folder = make_checkpoint(tmp_path, 3)
    manifest = folder / "manifest.json"
    reseal(folder, base=_base(folder), recipe_digest="another", data_digest="d")
    assert read_manifest(folder)["recipe_digest"] == "another"
    manifest.write_text(manifest.read_text().replace('"another"', '"third"'))
    with pytest.raises(CheckpointError, match="differs from what was saved"):
        read_manifest(folder)


def _base(folder: Path) -> BaseRef:
    return BaseRef(**read_manifest(folder)["base"])
