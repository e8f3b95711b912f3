"""The resolved recipe: every value written out with where it came from, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

from recipes import schema
from recipes.load import LoadedRecipe
from recipes.recipe import Recipe

FREE = (
    "cluster.",
    "slurm.",
    "ray_job.",
    "kuberay.",
    "storage.",
    "checkpoint.",
    "evaluate.",
    "failure.",
    "zero.",
    # Told apart by the digests of what they hold, which a checkpoint names; they may move.
    "base.source",
    "base.revision",
    "base.allow_pickle",
    "base.copy_to",
    "data.train",
    "data.held_out",
    "train.micro_batch_size",
    "base.gradient_checkpointing",
    "name",
    "description",
)
"""Paths, or beginnings of paths, whose values may change while a run goes on: where, on how many
workers and in what pieces it is computed, and what is kept and measured."""


def to_yaml(loaded: LoadedRecipe, *, without: Collection[str] = ()) -> str:
    """The recipe as YAML that loads to the same recipe, each value followed by its origin; some
    paths may be left `without`, to get the defaults of where it is loaded."""
    lines = [f"# Resolved from {loaded.file}. Each value tells where it came from."]
    section = ""
    for path, leaf in values(loaded.recipe).items():
        if path in without:
            continue
        name = path.rpartition(".")[2]
        head = path.rpartition(".")[0]
        if head != section:
            lines += ["", f"{head}:"]
            section = head
        indent = "  " if head else ""
        lines.append(f"{indent}{name}: {scalar(leaf)}  # {loaded.origins[path]}")
    return "\n".join(lines) + "\n"


def values(recipe: Recipe) -> dict[str, Any]:
    """Every leaf of a recipe by its path."""
    found = {leaf.path: getattr(recipe, leaf.path) for leaf in schema.fields_of(Recipe, "")}
    for name in schema.sections():
        section = getattr(recipe, name)
        kind: type = type(section)
        for leaf in schema.fields_of(kind, f"{name}."):
            value = getattr(section, leaf.path.rpartition(".")[2])
            found[leaf.path] = [item.plain() for item in value] if leaf.item else value
    return found


def digest(recipe: Recipe) -> str:
    """sha256 of every value that decides what is learnt (hex, 64 characters), without `FREE`."""
    kept = {path: value for path, value in values(recipe).items() if not path.startswith(FREE)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def differences(left: Recipe, right: Recipe) -> dict[str, tuple[Any, Any]]:
    """The leaves in which two recipes differ, by path."""
    a, b = values(left), values(right)
    return {path: (a.get(path), b.get(path)) for path in {**a, **b} if a.get(path) != b.get(path)}


def scalar(value: Any) -> str:
    """One value as it stands in a recipe."""
    # JSON is YAML; a "${" would be taken for an interpolation when it is read again.
    return json.dumps(value, ensure_ascii=False).replace("${", "\\\\${")
