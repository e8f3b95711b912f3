"""`shoal combine`: several adapters of one base into one folder, which is used as an export is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.checkpoint_folder import (
    Origin,
    Position,
    read_manifest,
    write_manifest,
)
from adapters.exported import CARD, RECIPE, verify_export
from adapters.quiet import quiet_transformers
from launcher.terminal import Display
from launcher.using.chosen import Chosen, choose, opening_of
from recipes import resolved
from recipes.errors import RecipeError
from recipes.files import whole_folder
from trainer.opening import check_adapter

if TYPE_CHECKING:
    from adapters.combination import Combined


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a person wants combined, and how; what is None is chosen by method and adapters."""

    runs: Sequence[str]
    weights: Sequence[float]
    to: Path
    method: str | None = None
    density: float | None = None
    rank: int | None = None
    seed: int = 0


def parse_weights(text: str | None, runs: Sequence[str]) -> list[float]:
    """A weight for each adapter from `0.7,0.3`; equal ones when left out. Raises `RecipeError`."""
    if len(runs) < 2:
        raise RecipeError("RUN…: one adapter alone cannot be combined; name two or more")
    if text is None:
        return [1 / len(runs)] * len(runs)
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        raise RecipeError(f"--weights = {text}: are no numbers; write --weights 0.7,0.3") from None
    if len(weights) != len(runs):
        raise RecipeError(
            f"--weights = {text}: {len(weights)} for {len(runs)} adapters ({', '.join(runs)}). "
            "Write one for each, with commas: --weights 0.7,0.3"
        )
    return weights


def combine(wanted: Wanted, overrides: Sequence[str], display: Display) -> Combined:
    """Write a folder with the combined adapter, whole or not at all.

    Raises `CheckpointError` for an adapter that is not whole or of another base, `AdapterError`
    for what PEFT cannot combine.
    """
    if wanted.to.exists():
        raise RecipeError(f"--to = {wanted.to}: is there already; name another folder")
    chosen = choose(wanted.runs, overrides, display.line)
    opening = opening_of(chosen[0].recipe, chosen)
    display.phase("combining", 0, 0)
    with quiet_transformers():
        from adapters.combination import Recipe
        from adapters.combination import combine as combine_folders
        from trainer.device import rank_device

        with whole_folder(wanted.to.absolute()) as aside:
            combined = combine_folders(
                [check_adapter(adapter.folder, opening.ref) for adapter in chosen],
                Recipe(
                    weights=tuple(wanted.weights),
                    method=wanted.method,
                    density=wanted.density,
                    rank=wanted.rank,
                    seed=wanted.seed,
                ),
                aside,
                base=opening.ref,
                base_folder=opening.folder,
                task=opening.task,
                device=rank_device(),
            )
            _write_about(aside, wanted.to.name, chosen, combined, opening.ref.source)
            manifests = [read_manifest(adapter.folder) for adapter in chosen]
            origin = Origin(
                base=opening.ref,
                recipe_digest=resolved.digest(chosen[0].recipe),
                data_digest=_joined([manifest["data_digest"] for manifest in manifests]),
                dtype=manifests[0]["dtype"],
                labels=opening.labels,
                multi_label=opening.multi_label,
            )
            write_manifest(aside, origin, Position(step=0), without=(CARD,))
            verify_export(aside)
    display.phase("combining", 1, 1)
    return combined


def _joined(digests: Sequence[str]) -> str:
    return hashlib.sha256(":".join(digests).encode()).hexdigest()


def _write_about(
    folder: Path, name: str, chosen: Sequence[Chosen], combined: Combined, base: str
) -> None:
    """How the base is opened and asked, as for the first; and what was combined of what."""
    loaded = chosen[0].loaded
    recipe = replace(loaded, recipe=replace(loaded.recipe, name=name))
    (folder / RECIPE).write_text(resolved.to_yaml(recipe), encoding="utf-8")
    parts = [
        {
            "name": adapter.name,
            "folder": str(adapter.folder),
            "step": read_manifest(adapter.folder)["step"],
            "weight": weight,
        }
        for adapter, weight in zip(chosen, combined.recipe.weights, strict=True)
    ]
    how = asdict(combined.recipe)
    del how["weights"]
    (folder / "combination.json").write_text(
        json.dumps({**how, "adapters": parts}, indent=2), encoding="utf-8"
    )
    (folder / CARD).write_text(_card(name, parts, combined, base), encoding="utf-8")


def _card(name: str, parts: Sequence[dict[str, object]], combined: Combined, base: str) -> str:
    rows = "\n".join(f"| {part['name']} | {part['step']} | {part['weight']:g} |" for part in parts)
    return f"""---
base_model: {base}
library_name: peft
---

# {name}

{combined.kind} adapters of one base, combined by PEFT with the method `{combined.recipe.method}`.

| adapter | step | weight |
|---|---|---|
{rows}
"""
