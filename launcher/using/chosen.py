"""Adapters as a person names them: a run, a step of a run, a checkpoint, an exported folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.base_ref import base_ref, locate
from adapters.checkpoint_folder import (
    MANIFEST,
    adapter_folder,
    folder_of,
    read_manifest,
    read_origin,
)
from adapters.exported import ADAPTER_CONFIG, RECIPE, is_export
from adapters.mirror import address_of, open_mirror
from adapters.tokenizer import read_template, saved_template
from launcher.records import run_names, runs
from recipes.address import is_address, last_name
from recipes.errors import CheckpointError, RecipeError
from recipes.listing import listed
from recipes.load import LoadedRecipe, load
from recipes.recipe import Recipe
from trainer.opening import Opening, check_adapter

if TYPE_CHECKING:
    from trainer.opened import OpenedBase

BASE = "base"
"""What answers without any adapter."""

_OF_STEP = re.compile(r"(.+)@(\d+)")

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An adapter, by a name that is its own among those chosen together."""

    name: str
    folder: Path
    """Holds its manifest."""
    loaded: LoadedRecipe

    @property
    def recipe(self) -> Recipe:
        return self.loaded.recipe


def choose(references: Sequence[str], overrides: Sequence[str], tell: Tell) -> list[Chosen]:
    """The adapters that are named; of a run the newest whole checkpoint, or that of RUN@STEP.
    `tell` is told which checkpoints were passed over.

    Raises `CheckpointError` that names what is not there, and what may have been meant.
    """
    found: list[Chosen] = []
    for reference in references:
        chosen = _choose(reference, overrides, tell)
        taken = {BASE, *(other.name for other in found)}
        name = next(name for name in run_names.numbered(chosen.name) if name not in taken)
        found.append(replace(chosen, name=name))
    tasks = {chosen.recipe.task: chosen.name for chosen in found}
    if len(tasks) > 1:
        told = ", ".join(f"{name} is a {task}" for task, name in tasks.items())
        raise CheckpointError(f"these adapters do not go together: {told}")
    return found


def _choose(reference: str, overrides: Sequence[str], tell: Tell) -> Chosen:
    sealed = _sealed_at(reference)
    if sealed is not None:
        loaded = load(_recipe_of(sealed), overrides)
        return Chosen(name=_name(sealed), folder=sealed, loaded=loaded)
    run, step = _run_and_step(reference)
    run_dir = runs.find(run, overrides)
    loaded = load(run_dir / RECIPE, overrides)
    name = last_name(address_of(run_dir) or "") or run_dir.name
    if step is not None:
        return Chosen(name=f"{name}@{step}", folder=_of_step(run_dir, step), loaded=loaded)
    folder = open_mirror(run_dir).newest(tell)
    if folder is None:
        raise CheckpointError(f"{runs.name_of(run_dir)}: has no checkpoint to answer with")
    return Chosen(name=name, folder=folder, loaded=loaded)


def _run_and_step(reference: str) -> tuple[str, int | None]:
    match = _OF_STEP.fullmatch(reference)
    is_name = Path(reference).expanduser().exists() or (runs.usual_storage() / reference).exists()
    if match is None or (is_name and not is_address(reference)):
        return reference, None
    return match[1], int(match[2])


def _sealed_at(reference: str) -> Path | None:
    path = Path(reference).expanduser()
    return _sealed(path.resolve()) if not is_address(reference) and path.is_dir() else None


def _sealed(path: Path) -> Path | None:
    """The folder with the manifest, if this is a checkpoint, its adapter, or an export."""
    if (path / ADAPTER_CONFIG).is_file():
        for folder in (path, path.parent):
            if (folder / MANIFEST).is_file() and path in (folder, adapter_folder(folder)):
                return folder
        raise CheckpointError(
            f"{path}: holds an adapter without a {MANIFEST}, so nothing tells on which base it "
            "was trained. Name a run, a checkpoint, or a folder that shoal exported"
        )
    if is_export(path):
        raise CheckpointError(
            f"{path}: was exported, and holds no adapter but a whole model. Name the run, or an "
            "export with --adapter"
        )
    return path if (path / MANIFEST).is_file() else None


def _recipe_of(sealed: Path) -> Path:
    """An export brings its recipe along; a checkpoint lies in the folder of its run."""
    for file in (sealed / RECIPE, sealed.parent.parent / RECIPE):
        if file.is_file():
            return file
    raise CheckpointError(
        f"{sealed}: there is no {RECIPE} in it, and it lies in no run that has one. Name the run "
        "itself, or copy its recipe.yaml there"
    )


def _name(sealed: Path) -> str:
    if sealed.name.startswith("step_") and (sealed.parent.parent / RECIPE).is_file():
        return f"{sealed.parent.parent.name}@{int(sealed.name.removeprefix('step_'))}"
    return sealed.name


def _of_step(run_dir: Path, step: int) -> Path:
    folder = folder_of(run_dir / "checkpoints", step)
    mirror = open_mirror(run_dir)
    if mirror.address is not None:
        mirror.fetch(folder)
    elif not folder.is_dir():
        there = [str(int(found.name[5:])) for found in sorted(folder.parent.glob("step_*"))]
        raise CheckpointError(
            f"{run_dir}: has no checkpoint of step {step}. There are those of "
            f"{listed(there) or 'no step'}"
        )
    return folder


def recipe_of(reference: str, overrides: Sequence[str]) -> Recipe:
    """The recipe of a run, or beside an adapter, whether or not there is a checkpoint."""
    sealed = _sealed_at(reference)
    if sealed is not None:
        return load(_recipe_of(sealed), overrides).recipe
    run_dir = runs.find(_run_and_step(reference)[0], overrides)
    return load(run_dir / RECIPE, overrides).recipe


def opening_of(recipe: Recipe, chosen: Sequence[Chosen] = ()) -> Opening:
    """The base of a recipe, after the adapters were read back and their base was compared with it.

    Raises `BaseModelError` when it is not there, `CheckpointError` when it is another one, or an
    adapter is not whole.
    """
    base = recipe.base
    folder = locate(base, Path(recipe.storage.cache))
    ref = base_ref(base.source, base.revision, folder)
    for adapter in chosen:
        check_adapter(adapter.folder, ref)
    labels = labels_of(chosen[0]) if chosen else ()
    template = _saved_template(chosen[0].folder) if chosen else None
    return Opening(
        base=base,
        folder=folder,
        ref=ref,
        task=recipe.task,
        labels=labels,
        chat_template=template or read_template(recipe.data.chat_template),
        multi_label=bool(chosen) and read_origin(chosen[0].folder).multi_label,
    )


def _saved_template(folder: Path) -> str | None:
    """That of a checkpoint, or of an export: chats go on as they were trained, even when the
    recipe's file has changed or is gone."""
    inner = adapter_folder(folder)
    return saved_template(inner if inner.is_dir() else folder)


def labels_of(chosen: Chosen) -> tuple[str, ...]:
    """The labels of a classification in the order of their ids; none of a causal model."""
    if chosen.recipe.task != "sequence_classification":
        return ()
    labels = read_manifest(chosen.folder).get("labels") or chosen.recipe.data.labels
    if not labels:
        raise RecipeError(
            f"{chosen.folder}: does not name its labels. Give them in the order of their ids: "
            "data.labels=[…]"
        )
    return tuple(labels)


def open_all(chosen: Sequence[Chosen]) -> OpenedBase:
    """The base that they have in common, opened in this process with all of them over it."""
    from trainer.opened import OpenedBase

    opened = OpenedBase(opening_of(chosen[0].recipe, chosen))
    for adapter in chosen:
        opened.add(adapter.name, adapter.folder)
    return opened
