"""Data that is prepared already is found without Ray and without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from launcher.inspection.place import find
from launcher.prepare.cleaning import inputs
from launcher.prepare.found import find_prepared
from launcher.prepare.intact import damage_of
from launcher.prepare.key import prepared_key
from launcher.prepare.sources.digests import hash_here, source_entry
from launcher.prepare.sources.source import find_sources
from recipes.errors import DataError
from recipes.load import load
from recipes.recipe import Recipe
from trainer.shard_writer import write_shard
from trainer.split import write_index


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


def test_what_decides_what_is_near_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file, base = str(recipe_file(tmp_path)), tmp_path / "base"
    exact = load(file, []).recipe
    near = load(file, ["data.deduplicate=near"]).recipe
    before = [prepared_key(recipe, base, []) for recipe in (exact, near)]
    version = inputs.version
    monkeypatch.setattr(inputs, "version", lambda name: "0.0" if name == "jieba" else version(name))
    after = [prepared_key(recipe, base, []) for recipe in (exact, near)]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_template_for_tools_is_in_the_key(tmp_path: Path):
    recipe, base = load(str(recipe_file(tmp_path)), []).recipe, tmp_path / "base"
    keys = [prepared_key(recipe, base, [])]
    (base / "additional_chat_templates").mkdir()
    for text in ("one", "two"):
        (base / "additional_chat_templates" / "tool_use.jinja").write_text(text)
        keys.append(prepared_key(recipe, base, []))
    assert len(set(keys)) == 3


def test_what_may_fail_is_asked_of_the_recipe_that_finds_it(tmp_path: Path):
    recipe = load(str(recipe_file(tmp_path)), []).recipe
    base, cache = tmp_path / "base", tmp_path / "cache"
    leave_manifest(recipe, base, cache, failed=1)
    with pytest.raises(DataError, match="1 of 4 rows cannot be used"):
        find_prepared(recipe, base_folder=base, cache=cache)


def leave_shards(folder: Path) -> dict[str, Any]:
    """Two shards with their index in a folder of prepared data, and its manifest."""
    (folder / "train").mkdir()
    row = {"input_ids": [1, 2], "labels": [-100, 2], "lengths": [2], "samples": [0]}
    rows = [row | {"supervised": 1, "sources": [0], "token_types": []}] * 3
    shards = [write_shard(folder / "train" / f"{name}.arrow", rows) for name in ("a", "b")]
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    index = write_index(folder / "train", shards)
    manifest["splits"]["train"] |= {"shards": shards, "index": index}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return manifest


@pytest.mark.parametrize(
    ("name", "size"), [("a.arrow", None), ("b.arrow", 100), ("tokens.npy", None)]
)
def test_a_file_that_is_missing_or_cut_off_is_seen_without_reading(
    tmp_path: Path, name: str, size: int | None
):
    recipe = load(str(recipe_file(tmp_path)), []).recipe
    base, cache = tmp_path / "base", tmp_path / "cache"
    folder = leave_manifest(recipe, base, cache)
    manifest = leave_shards(folder)
    whole = {file.name: file.stat().st_size for file in (folder / "train").iterdir()}
    assert damage_of(folder, manifest) is None
    assert find_prepared(recipe, base_folder=base, cache=cache) is not None
    assert find(str(folder), [], cache).folder == folder
    file = folder / "train" / name
    if size is None:
        file.unlink()
    else:
        os.truncate(file, size)
    how = "is missing" if size is None else f"has {size} of {whole[name]:,} bytes"
    assert damage_of(folder, manifest) == f"{file}: {how}"
    assert find_prepared(recipe, base_folder=base, cache=cache) is None
    with pytest.raises(DataError, match=f"{name}: {how}. To prepare it again: shoal prepare"):
        find(str(folder), [], cache)


def test_shards_from_before_sizes_were_kept_need_only_be_there(tmp_path: Path):
    recipe = load(str(recipe_file(tmp_path)), []).recipe
    folder = leave_manifest(recipe, tmp_path / "base", tmp_path / "cache")
    manifest = leave_shards(folder)
    for shard in manifest["splits"]["train"]["shards"]:
        del shard["bytes"]
    os.truncate(folder / "train" / "a.arrow", 100)
    assert damage_of(folder, manifest) is None
    (folder / "train" / "a.arrow").unlink()
    assert damage_of(folder, manifest) == f"{folder / 'train' / 'a.arrow'}: is missing"
    # The sizes of the index follow from the counts, which were always kept.
    write_shard(folder / "train" / "a.arrow", [])
    os.truncate(folder / "train" / "sample_ids.npy", 130)
    assert "sample_ids.npy: has 130 of 176 bytes" in str(damage_of(folder, manifest))


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
