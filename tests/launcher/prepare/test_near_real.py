"""No near duplicate of what is held out is trained on, on real Chinese reviews of which half are
there twice."""

from __future__ import annotations

import json
import random
import re
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import jieba
import pytest

from launcher.prepare.pipeline import prepare
from launcher.samples import catalogue
from recipes.base import Base
from recipes.data import Data, Source, steps
from recipes.recipe import Recipe
from recipes.storage import default_cache
from recipes.train import Train
from support.prepared import silent
from trainer.split import open_split

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

SIMILARITY = 0.7
LOOKED_AT = 60


def grams(text: str) -> frozenset[Any]:
    """Pairs of words, by another way than the product's."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = [word for word in jieba.lcut(plain) if re.search(r"\w", word)]
    return frozenset(pairwise(words)) or frozenset(words)


def texts_of(folder: Path, split: str, rows: list[str]) -> list[str]:
    manifest = json.loads((folder / "manifest.json").read_text())
    found = open_split(folder, split)
    ids = [sample for index in range(len(found)) for sample in found.samples(index)]
    first = [unit["first_line"] for unit in manifest["units"]]
    return [rows[first[sample >> 32] + (sample & 0xFFFFFFFF)] for sample in ids]


def test_nothing_held_out_is_nearly_trained_on(llama: Path, tmp_path: Path):
    folder = Path(default_cache())
    catalogue.make("reviews_zh", folder, lambda text: None)
    file = catalogue.path("reviews_zh", folder) / "reviews.jsonl"
    rows = [json.loads(line)["text"] for line in file.read_text("utf-8").split("\n") if line]
    recipe = Recipe(
        name="r",
        base=Base(source="b"),
        data=Data(
            train=[Source(path=str(file), format="text")],
            held_out_fraction=0.05,
            deduplicate="near",
            near_similarity=SIMILARITY,
            near_words=2,
            sequence_length=256,
            too_long="truncate",
            clean=[steps.CollapseWhitespace(), steps.Characters(min=12)],
            unit_mb=1,
        ),
        train=Train(steps=1),
    )
    prepared = prepare(recipe, base_folder=llama, cache=tmp_path, progress=silent)
    rejected = prepared.manifest["rejected"]
    assert rejected["duplicate"] > 10_000
    assert rejected["near duplicate"] > 50
    held_out = texts_of(prepared.folder, "held_out", rows)
    trained = texts_of(prepared.folder, "train", rows)
    assert len(held_out) > 500
    assert not {text.strip() for text in held_out} & {text.strip() for text in trained}
    asked = [grams(text) for text in random.Random(0).sample(held_out, LOOKED_AT)]
    near = 0
    for text in trained:
        words = grams(text)
        # The few that are just near are found with a probability of 98 %.
        near += any(len(words & other) > 0.75 * len(words | other) for other in asked)
    assert near == 0
