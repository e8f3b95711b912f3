"""Preparing data: against `datasets.map` on the same rows and cores, a second time, on nodes, and
in how much memory."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from adapters.base_ref import locate
from benchmarks.commands import SHOAL
from benchmarks.review_rows import write_rows
from benchmarks.taken import Taken, take
from cluster.process import run
from recipes.base import Base
from recipes.storage import default_cache
from trainer.shards import read_manifest

_ROUNDS = 3
_ROWS = (10_000, 40_000, 160_000, 640_000, 1_280_000)
# Of many rows one round says as much, and takes minutes.
_ONCE_FROM_ROWS = 640_000
_SECOND_RUNS = 5
_NODES = (1, 2, 3)
_TIMEOUT_S = 3600
_BASE = "sample:smollm2-135m-instruct"
# Four times the object store of benchmarks.prepare_on; nearly all of it is dropped for its length.
_LARGE_BYTES = 320 * 2**20


def measure(folder: Path) -> dict[str, Any]:
    """All parts."""
    cores = os.cpu_count() or 1
    files = {rows: folder / f"{rows}.jsonl" for rows in _ROWS}
    for rows, file in files.items():
        write_rows(Path(default_cache()) / "samples", file, rows)
    return {
        "cores": cores,
        "load_before": os.getloadavg()[0],
        "by_rows": [_against_datasets(folder, file, cores) for file in files.values()],
        "second_run": _second_run(folder, files[40_000]),
        "nodes": [_on_nodes(folder, files[160_000], nodes) for nodes in _NODES],
        "large": _large(folder),
        "driver": _run_module(folder, "prepare_driver"),
        "load_after": os.getloadavg()[0],
    }


def _recipe(folder: Path, file: Path, **data: Any) -> Path:
    """A recipe with a cache of its own, in which nothing is prepared yet."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    content = {
        "base": {"source": str(locate(Base(source=_BASE), Path(default_cache())))},
        "data": {
            "train": [str(file)],
            "format": "text",
            "clean": [
                "normalize_unicode",
                "strip_control",
                "strip_html",
                "strip_urls",
                "collapse_punctuation",
                "collapse_whitespace",
                "segment",
            ],
            "sequence_length": 1024,
            "too_long": "split",
            "packing": True,
            **data,
        },
        "adapter": {"targets": ["q_proj"]},
        "train": {
            "steps": 1,
            "global_batch_size": 1,
            "micro_batch_size": 1,
            "learning_rate": 1e-3,
        },
        "storage": {"cache": str(cache)},
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content), encoding="utf-8")
    return recipe


def _against_datasets(folder: Path, file: Path, cores: int) -> dict[str, Any]:
    """Both commands from their start to their end, in turn: rows per second, and the ratios."""
    ours: list[Taken] = []
    theirs: list[Taken] = []
    with_our_cut: list[Taken] = []
    rounds = _ROUNDS if int(file.stem) < _ONCE_FROM_ROWS else 1
    for number in range(rounds):
        recipe = _recipe(folder, file)
        ours.append(_shoal(recipe))
        manifest = _manifest(folder)
        for cutter, found in (("jieba", theirs), ("shoal", with_our_cut)):
            taken, told = _datasets(folder, recipe, cores, cutter)
            found.append(taken)
            assert told["rows"] == manifest["rows_read"]
        print(f"  {file.stem} rows: round {number + 1} of {rounds} done", file=sys.stderr)
    rows, train = manifest["rows_read"], manifest["splits"]["train"]
    return {
        "rows": rows,
        "bytes": file.stat().st_size,
        "ratio": _ratio(theirs, ours, "seconds"),
        "ratio_with_shoals_words": _ratio(with_our_cut, ours, "seconds"),
        "cpu_ratio": _ratio(theirs, ours, "cpu_s"),
        "cpu_ratio_with_shoals_words": _ratio(with_our_cut, ours, "cpu_s"),
        "shoal_rows_per_s": rows / statistics.median(one.seconds for one in ours),
        "datasets_rows_per_s": rows / statistics.median(one.seconds for one in theirs),
        "shoal": [asdict(one) for one in ours],
        "datasets": [asdict(one) for one in theirs],
        "datasets_with_shoals_words": [asdict(one) for one in with_our_cut],
        "shoal_tokens": train["tokens"],
        "datasets_tokens": told["tokens"],
        "duplicates": manifest["rejected"].get("duplicate", 0),
        "padding": train["padding"],
    }


def _ratio(slower: Sequence[Taken], faster: Sequence[Taken], what: str) -> float:
    """The median over the rounds."""
    pairs = zip(slower, faster, strict=True)
    ratios: list[float] = [getattr(a, what) / getattr(b, what) for a, b in pairs]
    return statistics.median(ratios)


def _datasets(folder: Path, recipe: Path, cores: int, cutter: str) -> tuple[Taken, dict[str, Any]]:
    result, cache = folder / "datasets.json", folder / "datasets"
    shutil.rmtree(cache, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "benchmarks.plain_datasets"),
        *(str(recipe), str(cores), cutter, str(result)),
    ]
    env = {"HF_DATASETS_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    root = Path(__file__).parent.parent
    taken = take(command, root, timeout_s=_TIMEOUT_S, env=env)
    return taken, json.loads(result.read_text(encoding="utf-8"))


def _shoal(recipe: Path) -> Taken:
    return take([SHOAL, "prepare", str(recipe)], recipe.parent, timeout_s=_TIMEOUT_S)


def _manifest(folder: Path) -> dict[str, Any]:
    [prepared] = (folder / "cache" / "prepared").iterdir()
    return read_manifest(prepared)


def _second_run(folder: Path, file: Path) -> dict[str, Any]:
    """`shoal prepare` that finds its data, beside one that only tells its options."""
    recipe = _recipe(folder, file)
    _shoal(recipe)
    found: list[float] = []
    started: list[float] = []
    for _ in range(_SECOND_RUNS):
        found.append(_shoal(recipe).seconds)
        told = take([SHOAL, "prepare", "--help"], folder, timeout_s=_TIMEOUT_S)
        started.append(told.seconds)
    beyond = [a - b for a, b in zip(found, started, strict=True)]
    return {
        "seconds": statistics.median(found),
        "of_it_start_of_the_command_s": statistics.median(started),
        "beyond_the_start_s": statistics.median(beyond),
    }


def _on_nodes(folder: Path, file: Path, nodes: int) -> dict[str, Any]:
    """On nodes of one CPU each, once Ray runs; `cores` says how many of them are real."""
    recipe = _recipe(folder, file)
    figures = _run_module(folder, "prepare_on", str(recipe), str(nodes), "1", "time")
    return {**figures, "rows_per_s": figures["rows"] / figures["seconds"]}


def _large(folder: Path) -> dict[str, Any]:
    """Rows of all lengths, most of them too long, in many times what the object store holds."""
    file = folder / "large.jsonl"
    write_large(file, _LARGE_BYTES)
    recipe = _recipe(folder, file, clean=[{"characters": {"max": 4000}}], unit_mb=32)
    figures = _run_module(folder, "prepare_on", str(recipe), "1", "2", "memory")
    return {"input_bytes": file.stat().st_size, **figures}


def write_large(file: Path, num_bytes: int) -> None:
    """Rows of 200 characters to a million, one after the other until there are so many bytes."""
    written = number = 0
    with file.open("w", encoding="utf-8") as stream:
        while written < num_bytes:
            words = f"row {number} says " + "the same again and again "
            text = words * (8 if number % 100 else 40_000)
            written += stream.write(json.dumps({"text": text}) + "\n")
            number += 1


def _run_module(folder: Path, module: str, *arguments: str) -> dict[str, Any]:
    """What a module of this package writes into the file that is its last argument."""
    result = folder / f"{module}.json"
    run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments, str(result)],
        timeout_s=_TIMEOUT_S,
        env={"HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parent.parent,
    )
    figures: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return figures
