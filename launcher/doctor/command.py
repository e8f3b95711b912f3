"""`shoal doctor`: the place is examined as its kind asks for, and the report is told."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.console import Console

from launcher.doctor.report import Report, show, to_json
from launcher.terminal import Display, open_display
from recipes.errors import RecipeError
from recipes.load import LoadedRecipe, load


def doctor(
    reference: str | None, overrides: Sequence[str], *, as_json: bool, measure_network: bool
) -> int:
    """The exit status: 0 when nothing would end a run, else 1."""
    loaded = load(reference, overrides) if reference is not None else None
    # JSON alone goes to the standard output.
    console = Console(stderr=True, highlight=False) if as_json else None
    with open_display(console) as display:
        report = _examine(loaded, display, measure_network=measure_network)
    recipe = loaded.recipe if loaded is not None else None
    if as_json:
        typer.echo(to_json(report, recipe))
    else:
        show(report, display, recipe=recipe, reference=reference or "")
    return report.status


def _examine(loaded: LoadedRecipe | None, display: Display, *, measure_network: bool) -> Report:
    if loaded is None:
        from launcher.doctor.here import examine_here

        return examine_here()
    kind = loaded.recipe.cluster.kind
    if kind == "slurm":
        from launcher.doctor.slurm_job import examine_in_job

        return examine_in_job(loaded, display, measure_network=measure_network)
    if kind == "ray_job":
        from launcher.doctor.ray_job import examine_in_ray_job

        return examine_in_ray_job(loaded, display, measure_network=measure_network)
    if kind == "kuberay":
        raise RecipeError(
            "cluster.kind = kuberay: the doctor does not go there by itself. Give it in a pod of "
            "that Ray cluster, with cluster.kind=ray"
        )
    from launcher.doctor.examine import examine

    return examine(loaded.recipe, display, measure_network=measure_network)
