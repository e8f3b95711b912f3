"""What of a run can leave the house: a whole checkpoint of it, and what is known about that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adapters.checkpoint_folder import folder_of, read_origin, read_position
from adapters.exported import check_adapter
from adapters.mirror import open_mirror
from adapters.model_card import Facts, Rows
from launcher.prepare import layout
from launcher.records import runs
from recipes import resolved
from recipes.adapter import Adapter, OtherPeft
from recipes.address import last_name
from recipes.compatibility import kind_of
from recipes.errors import CheckpointError, DataError, RecipeError
from recipes.listing import listed
from recipes.load import load
from recipes.recipe import Recipe
from trainer import shards
from trainer.split import open_split

_SETTINGS = (
    "adapter.",
    "seed",
    "data.sequence_length",
    "data.packing",
    "train.steps",
    "train.epochs",
    "train.global_batch_size",
    "train.learning_rate",
    "train.schedule",
    "train.warmup_steps",
    "train.weight_decay",
    "train.optimizer",
    "base.dtype",
    "base.quantization",
)
_LIBRARIES = ("shoal", "peft", "transformers", "torch", "safetensors")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exportable:
    """A checkpoint that was read back whole."""

    run_dir: Path
    name: str
    """Of the run."""
    recipe: Recipe
    checkpoint: Path
    step: int
    data: Mapping[str, Any] | None
    """The manifest of the data it was trained on, if that is still at hand."""
    prepared: Path | None
    """Where that lies."""
    before: Mapping[str, float]
    after: Mapping[str, float]
    """Scores; empty when they were not measured at this step."""


def exportable(run_dir: Path, overrides: Sequence[str], step: int | None) -> Exportable:
    """A run's newest checkpoint, or that of a step. `overrides` may say where the base lies now.

    Raises `CheckpointError` when it is not whole, `RecipeError` when an override changes what was
    learnt.
    """
    recipe = load(run_dir / "recipe.yaml", overrides).recipe
    runs.check_same(run_dir, recipe)
    checkpoint = _checkpoint(run_dir, step)
    check_adapter(checkpoint)
    position = read_position(checkpoint)
    prepared, data = _data(recipe, read_origin(checkpoint).data_digest)
    after = runs.read_evaluation(run_dir, "after") or {}
    measured = after["scores"] if after.get("step") == position.step else position.scores
    return Exportable(
        run_dir=run_dir,
        name=last_name(runs.name_of(run_dir)),
        recipe=recipe,
        checkpoint=checkpoint,
        step=position.step,
        data=data,
        prepared=prepared,
        before=(runs.read_evaluation(run_dir, "before") or {}).get("scores", {}),
        after=measured,
    )


def _checkpoint(run_dir: Path, step: int | None) -> Path:
    """The newest is not passed over when it is bad: what leaves the house is chosen knowingly."""
    mirror = open_mirror(run_dir)
    checkpoints = run_dir / "checkpoints"
    if step is not None:
        folder = folder_of(checkpoints, step)
        mirror.fetch(folder)
        if not folder.is_dir():
            known = listed(
                [str(int(there.name[5:])) for there in sorted(checkpoints.glob("step_*"))]
            )
            raise CheckpointError(
                f"--step {step}: {run_dir} has no such checkpoint. It has steps {known or 'none'}"
            )
        return folder
    bad: list[str] = []
    newest = mirror.newest(bad.append)
    if newest is None:
        raise CheckpointError(bad[0] if bad else f"{run_dir}: has no checkpoint yet")
    if bad:
        whole = int(newest.name[5:])
        raise CheckpointError(f"{bad[0]}. The newest whole one is older; name it: --step {whole}")
    return newest


def _data(recipe: Recipe, digest: str) -> tuple[Path | None, Mapping[str, Any] | None]:
    """The prepared data with this digest of its training rows, and its manifest."""
    for folder in sorted(layout.all_finished(Path(recipe.storage.cache))):
        with suppress(DataError, KeyError):
            manifest = shards.read_manifest(folder)
            if shards.training_digest(manifest) == digest:
                return folder, manifest
    return None, None


def labels(source: Exportable) -> Sequence[str]:
    """Names of the classes, in order; none for causal models.

    Raises `DataError` when they are not known any more.
    """
    if source.recipe.task == "causal_lm":
        return ()
    known = source.data["labels"] if source.data is not None else source.recipe.data.labels
    if not known:
        raise DataError(
            f"{source.name}: the names of its labels lie with the prepared data, which is not in "
            f"{source.recipe.storage.cache}/prepared. Name its cache with storage.cache=FOLDER, or "
            f"prepare the data again: shoal prepare {source.run_dir}/recipe.yaml"
        )
    return tuple(known)


def probes(source: Exportable, *, rows: int, tokens: int) -> list[list[int]]:
    """Token ids of a few rows of the data it was trained on, or ids that are always the same."""
    if source.prepared is not None:
        with suppress(DataError):
            split = open_split(source.prepared, "train")
            return [split[row].input_ids[:tokens].tolist() for row in range(min(rows, len(split)))]
    return [list(range(1 + row, 1 + row + tokens)) for row in range(rows)]


def facts(source: Exportable, hub_id: str | None) -> Facts:
    """What the card tells. `hub_id` is a name of the base that others can use."""
    origin = read_origin(source.checkpoint)
    if hub_id is None and not Path(origin.base.source).is_absolute():
        hub_id = origin.base.source
    return Facts(
        run=source.name,
        description=source.recipe.description,
        task=source.recipe.task,
        kind=_kind(source.recipe.adapter),
        step=source.step,
        base=origin.base,
        hub_id=hub_id,
        quantization=source.recipe.base.quantization,
        new_tokens=source.recipe.base.new_tokens,
        labels=source.data["labels"] if source.data is not None else source.recipe.data.labels,
        multi_label=origin.multi_label,
        rows=_rows(source.data) if source.data is not None else None,
        data_digest=origin.data_digest,
        recipe_digest=origin.recipe_digest,
        settings=_settings(source.recipe),
        before=source.before,
        after=source.after,
        versions={name: version(name) for name in _LIBRARIES},
    )


def _kind(adapter: Adapter) -> str:
    return adapter.method.lower() if isinstance(adapter, OtherPeft) else kind_of(adapter)


def check_hub_id(name: str) -> None:
    """Raises `RecipeError` when others could not find a base by this name."""
    if not _HUB_ID.fullmatch(name):
        raise RecipeError(f"--base-model {name}: is no hub id. Write ORG/NAME")


def _rows(data: Mapping[str, Any]) -> Rows:
    train, held_out = data["splits"]["train"], data["splits"]["held_out"]
    return Rows(
        train_samples=train["samples"],
        train_sequences=train["rows"],
        train_tokens=train["tokens"],
        supervised_tokens=train["supervised"],
        held_out_samples=held_out["samples"],
    )


def _settings(recipe: Recipe) -> dict[str, Any]:
    """What was set, by section as in a recipe."""
    found: dict[str, Any] = {}
    for path, value in resolved.values(recipe).items():
        if path.startswith(_SETTINGS) and value not in (None, (), []):
            section, _, name = path.rpartition(".")
            place = found.setdefault(section, {}) if section else found
            place[name] = list(value) if isinstance(value, tuple) else value
    return found
