"""Data that is prepared already is found without Ray and without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from launcher.prepare.digests import hash_here, source_entry
from launcher.prepare.found import find_prepared
from launcher.prepare.key import prepared_key
from launcher.prepare.sources import find_sources
from recipes.errors import DataError
from recipes.load import load
from recipes.recipe import Recipe


def recipe_file(folder: Path) -> Path:
    """A recipe whose data is prepared in the cache beside it: so says the manifest."""
    (folder / "base").mkdir()
    (folder / "base" / "tokenizer.json").write_text("{}")
    (folder / "base" / "config.json").write_text("{}")
    (folder / "base" / "model.safetensors").write_bytes(b"")
    (folder / "rows.jsonl").write_text('{"text": "one"}\n')
    file = folder / "recipe.yaml"
    content = {
        "base": {"source": str(folder / "base")},
        "data": {"train": [str(folder / "rows.jsonl")], "format": "text"},
        "adapter": {"targets": ["q_proj"]},
        "train": {
            "steps": 1,
            "global_batch_size": 1,
            "micro_batch_size": 1,
            "learning_rate": 1e-3,
        },
        "storage": {"cache": str(folder / "cache")},
    }
    file.write_text(json.dumps(content))  # which is YAML too
    return file


def leave_manifest(recipe: Recipe, base: Path, cache: Path, failed: int = 0) -> Path:
    """A manifest of four rows, of which some have failed, where `prepare` would leave it."""
    sources = find_sources(recipe.data, cache)
    entries = [
        source_entry(source, sha256)
        for source, sha256 in zip(sources, hash_here(sources), strict=True)
    ]
    folder = cache / "prepared" / prepared_key(recipe, base, entries)
    folder.mkdir(parents=True, exist_ok=True)
    split = {"samples": 3, "repeated": 0, "rows": 3, "tokens": 9, "supervised": 6, "shards": []}
    manifest = {
        "rows_read": 4,
        "failed": {"not JSON": failed} if failed else {},
        "splits": {"train": split, "held_out": split},
        "by_source": {},
        "cut": {},
        "packing": False,
        "rejected": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_what_is_there_is_found_and_what_has_changed_is_not(tmp_path: Path):
    recipe = load(str(recipe_file(tmp_path)), []).recipe
    base, cache = tmp_path / "base", tmp_path / "cache"
    assert find_prepared(recipe, base_folder=base, cache=cache) is None
    folder = leave_manifest(recipe, base, cache)
    os.utime(folder, (0, 0))
    found = find_prepared(recipe, base_folder=base, cache=cache)
    assert found is not None
    assert (found.folder, found.fresh) == (folder, False)
    assert folder.stat().st_mtime > 0  # noted as used
    (tmp_path / "rows.jsonl").write_text('{"text": "two"}\n')
    assert find_prepared(recipe, base_folder=base, cache=cache) is None


def test_what_may_fail_is_asked_of_the_recipe_that_finds_it(tmp_path: Path):
    recipe = load(str(recipe_file(tmp_path)), []).recipe
    base, cache = tmp_path / "base", tmp_path / "cache"
    leave_manifest(recipe, base, cache, failed=1)
    with pytest.raises(DataError, match="1 of 4 rows cannot be used"):
        find_prepared(recipe, base_folder=base, cache=cache)


def test_more_than_one_process_should_read_is_left_to_the_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = load(str(recipe_file(tmp_path)), []).recipe
    base, cache = tmp_path / "base", tmp_path / "cache"
    leave_manifest(recipe, base, cache)
    monkeypatch.setattr("launcher.prepare.found.HASHED_HERE_BYTES", 3)
    assert find_prepared(recipe, base_folder=base, cache=cache) is None


def test_the_command_starts_neither_ray_nor_torch(tmp_path: Path):
    file = recipe_file(tmp_path)
    folder = leave_manifest(load(str(file), []).recipe, tmp_path / "base", tmp_path / "cache")
    program = """
        import sys
        from launcher.cli import app

        app(["prepare", sys.argv[1]], standalone_mode=False)
        print("IMPORTED", sorted({"ray", "torch", "transformers"} & set(sys.modules)))
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(file)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert "nothing to do" in ended.stdout
    assert folder.name in ended.stdout.replace("\n", "")
    assert "IMPORTED []" in ended.stdout
