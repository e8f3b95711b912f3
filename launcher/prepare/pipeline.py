"""Preparing a recipe's data: find, clean, select, tokenise, and put the folder in its place."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from adapters.tokenizer import has_chat_template
from launcher.prepare.key import PREPARE_VERSION, prepared_key, source_entries
from launcher.prepare.selection import select
from launcher.prepare.sources import Source, Unit, find_sources, units
from launcher.prepare.tasks import (
    PROMPTS_KEPT,
    CleanReport,
    Context,
    TokenizeReport,
    clean_unit,
    read_cleaned,
    run_on_ray,
    tokenize_unit,
    verdict_file,
)
from recipes.errors import DataError, StorageError
from recipes.files import whole_folder
from recipes.recipe import Recipe
from trainer.shards import read_manifest
from trainer.split import write_index

Progress = Callable[[str, int, int], None]
"""Name of the phase, units done, units in all."""

_SPLITS = ("train", "held_out")
_MANIFEST = "manifest.json"
_LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Prepared data; `fresh` when this call made it, else it was there."""

    folder: Path
    manifest: Mapping[str, Any]
    fresh: bool


def prepare(recipe: Recipe, *, base_folder: Path, cache: Path, progress: Progress) -> Prepared:
    """The prepared data of a recipe in `cache/prepared/<key>`, made on the connected Ray if needed.

    Raises `DataError` when a source cannot be read or no row can be used.
    """
    sources = find_sources(recipe.data, cache)
    progress("reading sources", 0, 0)
    entries = source_entries(sources)
    progress("reading sources", 1, 1)
    folder = cache / "prepared" / prepared_key(recipe, base_folder, entries)
    # Runs of a sweep begin at the same moment, and need the same.
    with _alone(folder, progress):
        if (folder / _MANIFEST).is_file():
            return Prepared(folder=folder, manifest=read_manifest(folder), fresh=False)
        manifest = _make(folder, recipe, base_folder, sources, entries, progress)
    return Prepared(folder=folder, manifest=manifest, fresh=True)


@contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    """Nobody else makes this folder meanwhile. Waits for whoever does, until it is made or its
    process has ended, however that ends."""
    locks = folder.parent.with_name("locks")
    lock = FileLock(locks / f"{folder.name}.lock")
    told = False
    try:
        locks.mkdir(parents=True, exist_ok=True)
        while not (folder / _MANIFEST).is_file():
            with suppress(Timeout):
                lock.acquire(timeout=_LOOK_AGAIN_S)
                break
            if not told:
                told = True
                progress("waiting for another run, which prepares the same data", 0, 0)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error}") from error
    try:
        yield
    finally:
        lock.release()


def _make(
    folder: Path,
    recipe: Recipe,
    base_folder: Path,
    sources: Sequence[Source],
    entries: Sequence[Mapping[str, Any]],
    progress: Progress,
) -> dict[str, Any]:
    """Fill a folder with prepared data: its manifest."""
    _check_tokenizer(recipe, base_folder)
    parts = units(sources, recipe.data.unit_mb * 2**20)
    with whole_folder(folder) as aside:
        for name in (*_SPLITS, "work"):
            (aside / name).mkdir()
        context = Context(recipe=recipe, tokenizer_folder=str(base_folder), work=aside / "work")
        cleaned, tokenized, labels = _run_stages(recipe, parts, context, progress)
        rejected = list(_rejected(parts, cleaned, tokenized))
        manifest = _manifest(recipe, folder.name, entries, cleaned, tokenized, labels, rejected)
        _check_usable(recipe, manifest)
        _write_lines(aside / "rejected.jsonl", rejected)
        prompts = [prompt for report in tokenized for prompt in report.prompts]
        _write_lines(aside / "prompts.jsonl", prompts[:PROMPTS_KEPT])
        for name in _SPLITS:
            split = manifest["splits"][name]
            split["index"] = write_index(aside / name, split["shards"])
        shutil.rmtree(aside / "work")
        (aside / _MANIFEST).write_text(
            json.dumps(manifest, ensure_ascii=False, indent=2), encoding="utf-8"
        )
    return manifest


def _check_tokenizer(recipe: Recipe, folder: Path) -> None:
    needs_template = recipe.task == "causal_lm" and recipe.data.format in ("messages", "text_label")
    if needs_template and not has_chat_template(folder):
        raise DataError(
            f"data.format = {recipe.data.format}: the tokenizer of {folder} has no chat template. "
            "Use a base that was made for chat, or data.format=text"
        )


def _run_stages(
    recipe: Recipe, parts: Sequence[Unit], context: Context, progress: Progress
) -> tuple[list[CleanReport], list[TokenizeReport], list[str]]:
    cleaned: list[CleanReport] = run_on_ray(
        clean_unit,
        parts,
        context,
        lambda done, total: progress("cleaning", done, total),
    )
    _select(recipe, parts, cleaned, context)
    labels = _labels(recipe, cleaned)
    tokenized: list[TokenizeReport] = run_on_ray(
        tokenize_unit,
        parts,
        replace(context, labels=tuple(labels)),
        lambda done, total: progress("tokenizing", done, total),
    )
    return cleaned, tokenized, labels


def _select(
    recipe: Recipe, parts: Sequence[Unit], cleaned: Sequence[CleanReport], context: Context
) -> None:
    """Judge all samples at once, and leave each unit's verdicts beside its samples."""
    tables = [read_cleaned(context.work, unit.number) for unit in parts]
    digests = [_digests(table["digest"]) for table in tables]
    questions = [_digests(table["question"]) for table in tables]
    held_out = [
        np.full(len(table), unit.source.split == "held_out")
        for unit, table in zip(parts, tables, strict=True)
    ]
    verdicts = select(
        np.concatenate(digests),
        np.concatenate(questions),
        np.concatenate(held_out),
        held_out_fraction=recipe.data.held_out_fraction,
        deduplicate=recipe.data.deduplicate != "none",
        labels_must_agree=recipe.task == "sequence_classification",
    )
    begin = 0
    for unit, report in zip(parts, cleaned, strict=True):
        end = begin + report.samples
        np.save(verdict_file(context.work, unit.number), verdicts.codes[begin:end])
        begin = end


def _digests(column: Any) -> Any:
    return np.frombuffer(b"".join(column.to_pylist()), dtype="V16")


def _labels(recipe: Recipe, cleaned: Sequence[CleanReport]) -> list[str]:
    """Labels in the order of their ids; none for causal models."""
    if recipe.task != "sequence_classification":
        return []
    found = sorted({label for report in cleaned for label in report.labels})
    if recipe.data.labels:
        return list(recipe.data.labels)
    if len(found) == 1:
        raise DataError(f"data.columns.label: every row has the label {found[0]}")
    return found


def _rejected(
    parts: Sequence[Unit], cleaned: Sequence[CleanReport], tokenized: Sequence[TokenizeReport]
) -> Iterator[dict[str, Any]]:
    """Every row that was set aside, with its file and its number in it, counted from 1."""
    lines_before: Counter[Path] = Counter()
    for unit, first, second in zip(parts, cleaned, tokenized, strict=True):
        path = unit.source.path
        together = sorted([*first.rejected, *second.rejected], key=lambda row: row["number"])
        for row in together:
            yield {
                "reason": row["reason"],
                "file": str(path),
                "row": lines_before[path] + row["number"] + 1,
                "detail": row["detail"],
                "text": row["text"],
            }
        lines_before[path] += first.lines


def _manifest(
    recipe: Recipe,
    key: str,
    entries: Sequence[Mapping[str, Any]],
    cleaned: Sequence[CleanReport],
    tokenized: Sequence[TokenizeReport],
    labels: Sequence[str],
    rejected: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    splits = {name: _split(name, tokenized, recipe) for name in _SPLITS}
    rows_read = sum(report.rows for report in cleaned)
    accounted = sum(split["samples"] for split in splits.values()) + len(rejected)
    assert rows_read == accounted, f"{rows_read} rows were read, {accounted} are accounted for"
    return {
        "version": PREPARE_VERSION,
        "key": key,
        "task": recipe.task,
        "labels": list(labels),
        "rows_read": rows_read,
        "splits": splits,
        "rejected": dict(sorted(Counter(row["reason"] for row in rejected).items())),
        "sources": list(entries),
    }


def _split(name: str, tokenized: Sequence[TokenizeReport], recipe: Recipe) -> dict[str, Any]:
    shards = [report.shards[name] for report in tokenized if name in report.shards]
    total = {
        what: sum(shard[what] for shard in shards)
        for what in ("rows", "samples", "tokens", "supervised")
    }
    if name == "held_out" and recipe.evaluate.choices:
        # Each sample is there once for each choice.
        total["samples"] //= len(recipe.evaluate.choices)
    return {**total, "shards": shards}


def _check_usable(recipe: Recipe, manifest: Mapping[str, Any]) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["rejected"].items())
    files = ", ".join(entry["path"] for entry in manifest["sources"])
    if manifest["splits"]["train"]["rows"] == 0:
        raise DataError(
            f"data.train: none of {manifest['rows_read']} rows can be trained on "
            f"({reasons or 'there are no rows'}) in {files}"
        )
    if recipe.data.holds_out and manifest["splits"]["held_out"]["rows"] == 0:
        what = "held_out" if recipe.data.held_out else "held_out_fraction"
        raise DataError(f"data.{what}: no usable row is held out ({reasons or 'too few rows'})")


def _write_lines(file: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    file.write_text(text, encoding="utf-8")
