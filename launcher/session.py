"""A run from its recipe to its result: prepare, train, evaluate, and tell what came of it.

torch and Ray are imported only once something is really started.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.base_ref import base_ref, locate
from adapters.checkpoint_folder import newest
from launcher import runs
from launcher.prepare import Prepared, find_sources
from launcher.prepare import prepare as prepare_data
from launcher.quiet import quiet_transformers
from launcher.terminal import Display
from recipes import resolved
from recipes.errors import CheckpointError, DataError, ShoalError
from recipes.files import write_whole
from recipes.load import LoadedRecipe, load
from recipes.recipe import Recipe

if TYPE_CHECKING:
    from trainer.job import Job

_NOT_SHOWN = ("phase", "step", "stopping")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to. `stopped` before its end, it can be resumed."""

    run_dir: Path
    task: str
    steps: int
    stopped: bool
    checkpoint: Path | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


def prepare(loaded: LoadedRecipe, display: Display) -> Prepared:
    """Prepare a recipe's data, or find it prepared."""
    from cluster.ray_cluster import connected

    recipe = loaded.recipe
    base_folder = locate(recipe.base.source, recipe.base.revision, Path(recipe.storage.cache))
    with connected_with_display(connected, recipe, display):
        return _prepare(recipe, base_folder, display)


def run(loaded: LoadedRecipe, display: Display, *, resume: bool = False) -> Outcome:
    """Do what a recipe says. With `resume`, its newest run goes on from its newest checkpoint."""
    recipe = loaded.recipe
    base_folder = locate(recipe.base.source, recipe.base.revision, Path(recipe.storage.cache))
    storage = Path(recipe.storage.path)
    runs.check_writable(storage)
    find_sources(recipe.data, Path(recipe.storage.cache))
    earlier = _run_to_resume(storage, recipe) if resume else None
    from cluster.ray_cluster import connected, resources, uses_gpu
    from launcher.drive import import_ray_train
    from launcher.preflight import Preflight

    with connected_with_display(connected, recipe, display):
        uses_gpu(recipe.cluster, resources())
        preflight = Preflight(recipe, base_folder)
        prepared = _prepare(recipe, base_folder, display)
        import_ray_train()
        preflight.land()
        run_dir = earlier or runs.create(storage, recipe.name)
        with _recorded(run_dir, loaded):
            runs.append_event(run_dir, "prepared", {"folder": str(prepared.folder)})
            job = _job(recipe, run_dir, prepared.folder, base_folder, resume=resume)
            if job.resume_from is not None:
                display.line(f"Going on from {job.resume_from}")
                runs.append_event(run_dir, "resumed", {"checkpoint": str(job.resume_from)})
            result = _drive(job, display)
        if not result["stopped"]:
            runs.append_event(run_dir, "finished")
    return Outcome(
        run_dir=run_dir,
        task=recipe.task,
        steps=result["steps"],
        stopped=result["stopped"],
        checkpoint=Path(result["checkpoint"]) if result["checkpoint"] else None,
        before=result["before"] or runs.read_evaluation(run_dir, "before"),
        after=result["after"],
    )


def evaluate(run_dir: Path, display: Display) -> Mapping[str, Any]:
    """Measure the newest checkpoint of a run on its held-out rows."""
    from cluster.ray_cluster import connected

    recipe = load(run_dir / "recipe.yaml").recipe
    folder = newest(run_dir / "checkpoints")
    if folder is None:
        raise CheckpointError(f"{run_dir}: has no checkpoint to evaluate")
    base_folder = locate(recipe.base.source, recipe.base.revision, Path(recipe.storage.cache))
    with connected_with_display(connected, recipe, display):
        prepared = _prepare(recipe, base_folder, display)
        if prepared.manifest["splits"]["held_out"]["rows"] == 0:
            raise DataError(f"{run_dir}: its recipe holds no rows out, there is nothing to measure")
        job = _job(recipe, run_dir, prepared.folder, base_folder, evaluate=folder)
        found: Mapping[str, Any] = _drive(job, display)["after"]
    return found


def generate(
    run_dir: Path,
    prompt: str,
    display: Display,
    *,
    max_new_tokens: int,
    system: str | None = None,
    base_only: bool = False,
) -> str:
    """The answer of a run's newest adapter, or of its base alone, computed in this process."""
    recipe = load(run_dir / "recipe.yaml").recipe
    if recipe.task != "causal_lm":
        raise CheckpointError(f"{run_dir}: is a {recipe.task}; only causal models answer prompts")
    folder = None if base_only else newest(run_dir / "checkpoints")
    if folder is None and not base_only:
        raise CheckpointError(f"{run_dir}: has no checkpoint to answer with")
    base_folder = locate(recipe.base.source, recipe.base.revision, Path(recipe.storage.cache))
    display.phase("answering", 0, 0)
    with quiet_transformers():
        from trainer.generation import answer

        text = answer(
            recipe.base,
            base_folder,
            folder,
            prompt,
            system=system if system is not None else recipe.data.system,
            max_new_tokens=max_new_tokens,
        )
    display.phase("answering", 1, 1)
    return text


@contextmanager
def connected_with_display(connected: Any, recipe: Recipe, display: Display) -> Iterator[None]:
    """Connected to the recipe's cluster, with the time it takes shown."""
    display.phase("starting Ray", 0, 0)
    with connected(recipe.cluster):
        display.phase("starting Ray", 1, 1)
        yield


def _prepare(recipe: Recipe, base_folder: Path, display: Display) -> Prepared:
    prepared = prepare_data(
        recipe,
        base_folder=base_folder,
        cache=Path(recipe.storage.cache),
        progress=display.phase,
    )
    display.line(_prepared_line(prepared))
    return prepared


def _prepared_line(prepared: Prepared) -> str:
    train, held_out = (prepared.manifest["splits"][name] for name in ("train", "held_out"))
    text = (
        f"{train['samples']:,} training samples in {train['rows']:,} sequences "
        f"({train['supervised']:,} of {train['tokens']:,} tokens supervised), "
        f"{held_out['samples']:,} held out"
    )
    rejected = prepared.manifest["rejected"]
    if rejected:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(rejected.items()))
        text += f"; set aside: {reasons} (see {prepared.folder / 'rejected.jsonl'})"
    if prepared.fresh:
        return f"Prepared {text}"
    return f"Data was prepared before, nothing to do: {text}"


def _run_to_resume(storage: Path, recipe: Recipe) -> Path | None:
    run_dir = runs.latest(storage, recipe.name)
    if run_dir is None:
        return None
    saved = load(run_dir / "recipe.yaml").recipe
    if resolved.digest(saved) != resolved.digest(recipe):
        changed = ", ".join(
            f"{path} = {new!r} (was {old!r})"
            for path, (old, new) in resolved.differences(saved, recipe).items()
        )
        raise CheckpointError(
            f"{run_dir}: cannot be resumed with another recipe: {changed}. "
            "Take the changes back, or start a new run without --resume"
        )
    return run_dir


def _job(
    recipe: Recipe,
    run_dir: Path,
    prepared: Path,
    base_folder: Path,
    *,
    resume: bool = False,
    evaluate: Path | None = None,
) -> Job:
    from trainer.job import Job

    return Job(
        recipe=recipe,
        run_dir=run_dir,
        prepared=prepared,
        base_folder=base_folder,
        base=base_ref(recipe.base.source, recipe.base.revision, base_folder),
        action="evaluate" if evaluate else "train",
        resume_from=evaluate or (newest(run_dir / "checkpoints") if resume else None),
    )


def _drive(job: Job, display: Display) -> dict[str, Any]:
    from launcher.drive import drive

    def tell(kind: str, details: Mapping[str, Any]) -> None:
        if kind == "phase":
            display.phase(details["name"], details["done"], details["total"])
        elif kind == "step":
            display.step(details)
        elif kind == "stopping":
            display.line("Stopping after this step; press Ctrl-C again to stop at once")
        if kind not in _NOT_SHOWN:
            runs.append_event(job.run_dir, kind, details)

    display.phase("starting workers", 0, 0)
    return drive(job, tell)


@contextmanager
def _recorded(run_dir: Path, loaded: LoadedRecipe) -> Iterator[None]:
    """A run's recipe and what becomes of it, on disk. A run that fails on purpose before its first
    step leaves nothing."""
    write_whole(run_dir / "recipe.yaml", resolved.to_yaml(loaded))
    runs.append_event(run_dir, "started")
    try:
        yield
    except ShoalError as error:
        if not (run_dir / "metrics.jsonl").exists():
            shutil.rmtree(run_dir, ignore_errors=True)
        else:
            runs.append_event(run_dir, "failed", {"error": str(error)})
        raise
    except BaseException as error:
        what = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        runs.append_event(run_dir, what, {"error": str(error)})
        raise
