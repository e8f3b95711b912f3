"""Preparing in tests, and reading what came of it by another way than the product's."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from launcher.prepare.found import Prepared
from launcher.prepare.pipeline import prepare
from recipes.base import Base
from recipes.data import Data, Source
from recipes.recipe import Recipe
from recipes.train import Train
from support.chat_styles import style
from trainer.split import open_split

Place = tuple[str, int]
"""Name of a file, and number of a line or row in it, from 1; a header does not count."""


def make_base(folder: Path, template: str = "images") -> Path:
    """A folder with nothing but a tokenizer, whose tokens are bytes and what is made of them."""
    style(template).save_pretrained(folder)
    return folder


def recipe(train: Sequence[Source], *, task: str = "causal_lm", **data: Any) -> Recipe:
    return Recipe(
        name="r",
        base=Base(source="b"),
        task=task,  # type: ignore[arg-type]
        data=Data(train=list(train), **({"sequence_length": 4096} | data)),
        train=Train(steps=1),
    )


def silent(name: str, done: int, total: int, *, rows: int = 0) -> None:
    """Shows no progress."""


def run(chosen: Recipe, base: Path, cache: Path) -> tuple[Prepared, list[str]]:
    """What is prepared, and what a person is told of the sources."""
    told: list[str] = []
    prepared = prepare(
        chosen,
        base_folder=base,
        cache=cache,
        progress=silent,
        tell=told.append,
    )
    return prepared, told


def write(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows in the kind of file that the name says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    name = file.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(rows)), file, row_group_size=500)
    elif name.endswith(".arrow"):
        table = pa.Table.from_pylist(list(rows))
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=500)
    else:
        opened = gzip.open if file.name.endswith(".gz") else open
        with opened(file, "wt", encoding="utf-8", newline="") as stream:
            if name.endswith(".csv"):
                writer = csv.DictWriter(stream, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            elif name.endswith(".txt"):
                stream.writelines(row["text"] + "\n" for row in rows)
            else:
                stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return file


def places(prepared: Prepared, split: str) -> list[list[Place]]:
    """Of each row of a split, where its samples come from."""
    manifest = prepared.manifest
    names = [Path(source["path"]).name for source in manifest["sources"]]
    found = open_split(prepared.folder, split)
    return [
        [
            (
                names[manifest["units"][sample >> 32]["file"]],
                manifest["units"][sample >> 32]["first_line"] + (sample & 0xFFFFFFFF) + 1,
            )
            for sample in found.samples(index)
        ]
        for index in range(len(found))
    ]


def set_aside(prepared: Prepared) -> dict[Place, dict[str, Any]]:
    """The lines of rejected/ by the place of their row."""
    lines = [
        json.loads(line)
        for file in sorted((prepared.folder / "rejected").iterdir())
        for line in file.read_text("utf-8").removesuffix("\n").split("\n")
        if line
    ]
    found = {(Path(line["file"]).name, line["row"]): line for line in lines}
    assert len(found) == len(lines)
    return found


def said(prepared: Prepared, tokenizer: Any, split: str) -> dict[Place, list[tuple[str, str]]]:
    """Of each row that is trained on or held out, what the model is given and what it learns of
    that, decoded; several times for rows of which several sequences are made. Unpacked only."""
    rows = open_split(prepared.folder, split)
    found: dict[Place, list[tuple[str, str]]] = {}
    for index, [place] in enumerate(places(prepared, split)):
        row = rows[index]
        learnt = [label for label in row.labels.tolist() if label >= 0]
        given = tokenizer.decode(row.input_ids.tolist())
        found.setdefault(place, []).append((given, tokenizer.decode(learnt)))
    return found


def check_accounted(prepared: Prepared, sizes: Mapping[str, int]) -> None:
    """Every row of files of so many rows is in exactly one place, and the counts say so too."""
    manifest = prepared.manifest
    everywhere: list[Place] = list(set_aside(prepared))
    for split in ("train", "held_out"):
        everywhere += {place for row in places(prepared, split) for place in row}
    expected = [(name, row) for name, size in sizes.items() for row in range(1, size + 1)]
    assert sorted(everywhere) == sorted(expected)
    taken = sum(
        split["samples"] - split["repeated"] + split["left_out_of_mix"]
        for split in manifest["splits"].values()
    )
    assert manifest["rows_read"] == len(expected)
    assert manifest["rows_read"] == taken + sum(manifest["rejected"].values())
    by_source = manifest["by_source"].values()
    assert sum(source["rows"] for source in by_source) == len(expected)
    assert sum(sum(source["rejected"].values()) for source in by_source) == len(set_aside(prepared))
