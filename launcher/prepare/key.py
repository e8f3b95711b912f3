"""The key of prepared data: equal content, equal key, wherever the files lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.base_files import tokenizer_files
from launcher.prepare.sources import Source
from recipes.files import sha256
from recipes.recipe import Recipe
from recipes.resolved import values

PREPARE_VERSION = 2
"""Raised by hand when the same content would be prepared differently than before."""

_NOT_CONTENT = ("train", "held_out")


def source_entries(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """What the manifest keeps of each source: path, split, bytes, sha256."""
    return [
        {
            "path": str(source.path),
            "split": source.split,
            "bytes": source.path.stat().st_size,
            "sha256": sha256(source.path),
        }
        for source in sources
    ]


def prepared_key(recipe: Recipe, tokenizer_folder: Path, entries: Sequence[dict[str, Any]]) -> str:
    """The first 32 hex digits of a sha256 over everything that decides the shards."""
    data = {
        path.removeprefix("data."): value
        for path, value in values(recipe).items()
        if path.startswith("data.")
    }
    content = {
        "version": PREPARE_VERSION,
        "task": recipe.task,
        "choices": list(recipe.evaluate.choices),
        "data": {name: value for name, value in data.items() if name not in _NOT_CONTENT},
        "tokenizer": _tokenizer_digest(tokenizer_folder),
        "sources": [
            [entry["split"], Path(entry["path"]).suffix, entry["sha256"]] for entry in entries
        ],
    }
    if recipe.base.new_tokens:
        content["new_tokens"] = list(recipe.base.new_tokens)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _tokenizer_digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in tokenizer_files(folder):
        total.update(f"{file.name}:{sha256(file)}".encode())
    return total.hexdigest()
