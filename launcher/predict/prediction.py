"""Predicting for the rows of files: each gives one line, in order, on any number of workers."""

from __future__ import annotations

import itertools
import math
import pickle
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from adapters.base_ref import read_config
from adapters.quiet import unheard
from adapters.tokenizer import chat_templates
from launcher.access import Access
from launcher.common_ground import check_nodes
from launcher.predict.answering import Answered, Answerer, Answering, Judged, Slice
from launcher.predict.asking import Asked, Asking, ask_unit
from launcher.prepare.base_tokenizer import BaseTokenizer
from launcher.prepare.sources.source import Unit
from launcher.prepare.stages.stage import run_on_ray, settle_ray_data
from launcher.session import connected_with_display
from launcher.terminal import Display
from launcher.using.chosen import choose, opening_of
from launcher.using.questions import units_of, way_of_texts
from recipes.cluster import Cluster
from recipes.errors import DataError, RecipeError, ShoalError, StorageError
from recipes.files import whole_file
from trainer.label_scores import label_scores, label_set_scores
from trainer.opening import Opening

# So many pieces at most go through the driver, however long the file is.
_MOST_SLICES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a person wants predicted, and how."""

    run: str
    file: str
    to: Path
    workers: int | None = None
    batch_size: int = 8
    max_new_tokens: int = 128
    choices: bool = True
    """Choose among evaluate.choices if the recipe has some, else answer freely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What came of it."""

    rows: int
    unusable: Mapping[str, int]
    scores: Mapping[str, float]
    """Over the rows that name what is right; empty when none does."""
    judged: int

    @property
    def unusable_rows(self) -> int:
        return sum(self.unusable.values())


def predict(wanted: Wanted, overrides: Sequence[str], display: Display) -> Predicted:
    """Predict for every row of a file, or of the files of a folder, and write `wanted.to`.

    Raises `DataError` when no row can be used; then, as after any error, nothing is written.
    """
    from cluster.ray_cluster import connected, resources

    [chosen] = choose([wanted.run], overrides, display.line)
    recipe, cache = chosen.recipe, Path(chosen.recipe.storage.cache)
    opening = opening_of(recipe, [chosen])
    parts = units_of(wanted.file, recipe, "FILE")
    has_template = opening.chat_template is not None or bool(chat_templates(opening.folder))
    way = way_of_texts(recipe, has_template=has_template, tell=display.line)
    with connected_with_display(connected, recipe, display), _work(cache) as work:
        workers, gpu = crew(
            recipe.cluster, resources(), wanted.workers or recipe.cluster.most_workers
        )
        check_nodes(recipe, {"storage.cache": cache}, opening.folder, display)
        tokenizer = work / "tokenizer"
        BaseTokenizer(tokenizer, recipe, opening.folder, opening.chat_template).land()
        asking = Asking(
            recipe=recipe,
            tokenizer_folder=tokenizer,
            work=work,
            way=way,
            choices=tuple(recipe.evaluate.choices) if wanted.choices else (),
            positions=read_config(opening.folder).get("max_position_embeddings"),
            max_new_tokens=wanted.max_new_tokens,
        )
        asked = run_on_ray(
            ask_unit,
            parts,
            asking,
            lambda done, total: display.phase("reading", done, total),
            access=Access.of(recipe, [part.source.address for part in parts]),
        )
        unusable = _check_usable(wanted, asked)
        answering = Answering(
            opening=opening if gpu else _in_float32(opening),
            adapter=chosen.folder,
            work=work,
            choices=asking.choices,
            batch_size=wanted.batch_size,
            max_new_tokens=wanted.max_new_tokens,
            threads=None if gpu else recipe.cluster.cpus_per_worker,
        )
        _tell_crew(workers, wanted.workers, gpu, display)
        judged = _write(
            wanted.to, slices(parts, asked, wanted.batch_size), answering, workers, display
        )
    rows = sum(part.rows for part in asked)
    names = answering.choices or opening.labels
    scores = _scores(judged, is_chosen=bool(names), multi_label=opening.multi_label)
    return Predicted(rows=rows, unusable=unusable, scores=scores, judged=len(judged))


@contextmanager
def _work(cache: Path) -> Iterator[Path]:
    """A folder that every node sees, as long as the prediction goes on."""
    folder = cache / "predicting" / uuid.uuid4().hex[:8]
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def crew(cluster: Cluster, resources: Mapping[str, float], wanted: int) -> tuple[int, bool]:
    """How many workers there is room for, at most as many as wanted, and whether each has a GPU.

    Raises `ClusterError` when there is room for none.
    """
    from cluster.ray_cluster import uses_gpu

    gpu = uses_gpu(replace(cluster, workers=[1]), resources)
    room = resources["GPU"] if gpu else resources["CPU"] / cluster.cpus_per_worker
    return min(wanted, int(room)), gpu


def _tell_crew(workers: int, wanted: int | None, gpu: bool, display: Display) -> None:
    if wanted is not None and workers < wanted:
        what = "GPUs" if gpu else "CPU cores"
        display.line(f"The cluster has {what} for {workers} of {wanted} workers: with these")


def _in_float32(opening: Opening) -> Opening:
    """`auto` is measured on each node, and workers must not differ in what they compute in."""
    if opening.base.dtype != "auto":
        return opening
    return replace(opening, base=replace(opening.base, dtype="float32"))


def _check_usable(wanted: Wanted, asked: Sequence[Asked]) -> dict[str, int]:
    unusable = sum((part.unusable for part in asked), Counter[str]())
    rows = sum(part.rows for part in asked)
    if unusable.total() == rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in unusable.items())
        raise DataError(
            f"{wanted.file}: none of {rows} rows can be asked ({reasons or 'there are no rows'}). "
            "Columns are named as data.columns says"
        )
    return dict(sorted(unusable.items()))


def slices(parts: Sequence[Unit], asked: Sequence[Asked], batch_size: int) -> list[Slice]:
    """All rows in pieces of whole batches, in order, whatever the number of workers."""
    rows = sum(report.rows for report in asked)
    size = batch_size * max(1, math.ceil(rows / batch_size / _MOST_SLICES))
    several = len({unit.source.address for unit in parts}) > 1
    numbers = itertools.count()
    lines_before: Counter[str] = Counter()
    found = []
    for unit, report in zip(parts, asked, strict=True):
        path = unit.source.address
        found += [
            Slice(
                number=next(numbers),
                unit=unit.number,
                begin=begin,
                end=min(begin + size, report.rows),
                lines_before=lines_before[path],
                file=path if several else None,
            )
            for begin in range(0, report.rows, size)
        ]
        lines_before[path] += report.lines
    return found


def _write(
    to: Path, parts: Sequence[Slice], answering: Answering, workers: int, display: Display
) -> list[Judged]:
    """Answer all slices and write their lines: what was right and predicted, where it is known."""
    judged: list[Judged] = []
    rows = sum(part.end - part.begin for part in parts)
    done = 0
    display.phase("predicting", done, rows)
    with whole_file(to) as stream:
        for answered in _answers(parts, answering, workers):
            stream.writelines(f"{line}\n" for line in answered.lines)
            judged += answered.judged
            done += len(answered.lines)
            display.phase("predicting", done, rows)
        assert done == rows, f"{rows} rows were asked, {done} are answered"
    return judged


def _answers(parts: Sequence[Slice], answering: Answering, workers: int) -> Iterator[Answered]:
    """The answers in the order of the slices. Raises the `ShoalError` of the first that has one."""
    import ray
    from ray.data import ActorPoolStrategy

    settle_ray_data()
    items = [{"slice": pickle.dumps(part)} for part in parts]
    on_gpu = answering.threads is None
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Answerer,
        fn_constructor_kwargs={"answering": answering},
        compute=ActorPoolStrategy(size=min(workers, len(items))),
        batch_size=1,
        batch_format="pyarrow",
        num_gpus=1 if on_gpu else None,
        num_cpus=None if on_gpu else answering.threads,
    )
    rows = iter(dataset.iter_rows())
    with unheard():  # Ray's C++ warns of every actor that Ray Data starts (Ray's issue 53727)
        first = next(rows)
    for number, row in enumerate(itertools.chain([first], rows)):
        answered = pickle.loads(row["answered"])
        if isinstance(answered, ShoalError):
            raise answered
        assert answered.number == number, f"slice {answered.number} came as number {number}"
        yield answered


def _scores(
    judged: Sequence[Judged], *, is_chosen: bool, multi_label: bool = False
) -> dict[str, float]:
    if not judged:
        return {}
    right, predicted = (list(part) for part in zip(*judged, strict=True))
    if multi_label:
        return label_set_scores(right, predicted)
    if is_chosen:
        return label_scores(right, predicted)
    same = sum(a.strip() == b for a, b in zip(right, predicted, strict=True))
    return {"exact match": same / len(judged)}


def check_target(to: Path, *, force: bool) -> None:
    """Raises `RecipeError` when nothing should, or could, be written there."""
    if to.exists() and not force:
        raise RecipeError(f"{to}: is there already; --force overwrites it")
    if not to.parent.is_dir():
        raise RecipeError(f"{to}: there is no folder {to.parent}; make it, or name another")


def told(found: Predicted, to: Path) -> Iterator[str]:
    """What came of it, for a person."""
    yield f"Predicted {found.rows - found.unusable_rows:,} of {found.rows:,} rows; they lie in {to}"
    if found.unusable:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in found.unusable.items())
        yield f"Rows that cannot be used have an error in their line: {reasons}"
    for name, score in found.scores.items():
        yield f"{name} {score:.3f} over {found.judged:,} rows that name what is right"
