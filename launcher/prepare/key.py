"""The key of prepared data: equal content, equal key, wherever the files lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.base_files import tokenizer_files
from adapters.tokenizer import read_template
from launcher.prepare.cleaning import near_versions, step_content, step_files, step_versions
from recipes import data as recipe_data
from recipes.files import sha256
from recipes.recipe import Recipe
from recipes.resolved import values

PREPARE_VERSION = 7
"""Raised by hand when the same content would be prepared differently than before."""

# What the manifest's counts are checked against, what the trainer does with the shards, and sources
# and files, which count by what they hold.
_NOT_CONTENT = ("train", "held_out", "clean", "max_failed", "group_by_length", "chat_template")


def prepared_key(
    recipe: Recipe, tokenizer_folder: Path, entries: Sequence[Mapping[str, Any]]
) -> str:
    """The first 32 hex digits of a sha256 over everything that decides the shards.

    `entries` are those of the sources, with their digests (`digests.source_entry`).
    """
    step_files(recipe.data.clean)  # told if one is not there
    data = {
        path.removeprefix("data."): value
        for path, value in values(recipe).items()
        if path.startswith("data.")
    }
    content: dict[str, Any] = {
        "version": PREPARE_VERSION,
        "task": recipe.task,
        "choices": list(recipe.evaluate.choices),
        "data": {name: value for name, value in data.items() if name not in _NOT_CONTENT},
        "tokenizer": _tokenizer_digest(tokenizer_folder),
        "new_tokens": list(recipe.base.new_tokens),
        "chat_template": read_template(recipe.data.chat_template),
        "steps": step_content(recipe.data.clean, sha256),
        "step_versions": dict(step_versions(recipe.data.clean)),
        "entries": [
            _without_path(source) for source in (*recipe.data.train, *recipe.data.held_out)
        ],
        "sources": [
            [entry[name] for name in ("split", "entry", "kind", "compression", "sha256")]
            for entry in entries
        ],
    }
    if recipe.data.deduplicate == "near":
        content["near_versions"] = near_versions()
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _without_path(source: recipe_data.Source) -> Any:
    plain = source.plain()
    return {} if isinstance(plain, str) else {**plain, "path": None}


def _tokenizer_digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in tokenizer_files(folder):
        total.update(f"{file.name}:{sha256(file)}".encode())
    return total.hexdigest()
