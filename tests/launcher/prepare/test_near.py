"""Near duplicates: which texts are compared, and which of those that are near stay."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from launcher.prepare.shapes import Sample
from launcher.prepare.stages import cleaned, judged, near, selection
from launcher.prepare.stages.context import Context
from launcher.prepare.stages.near import PAIR, decide
from launcher.prepare.stages.runs import PREFIXES
from launcher.prepare.stages.similarity import Likeness, band_hashes, grams, jaccard, num_bands
from recipes.base import Base
from recipes.data import Data
from recipes.recipe import Recipe
from recipes.train import Train

HOW = Likeness(similarity=0.8, words=3, permutations=128)


def test_grams_are_of_words():
    assert grams("The cat sat, the cat sat!", 3) == grams("the CAT  sat the cat\nsat", 3)
    assert len(grams("a b c d", 2)) == 3
    # Shorter than an n-gram, all of it is one.
    assert grams("a b", 3) == grams("A  b", 3) != grams("b a", 3)
    assert grams("", 3) == grams("?!", 3)
    # Chinese without spaces is cut by jieba: 人工智能 正在 改变 世界
    assert grams("人工智能正在改变世界", 2) == grams("人工智能，正在 改变世界。", 2)
    assert len(grams("人工智能正在改变世界", 2)) == 3
    assert grams("ＡＢＣ１２３", 1) == grams("abc123", 1)


def test_jaccard_is_the_share_in_common():
    assert jaccard(frozenset({1, 2, 3}), frozenset({2, 3, 4})) == 0.5
    assert jaccard(frozenset(), frozenset()) == 1.0


@pytest.mark.parametrize(("similarity", "permutations"), [(0.7, 128), (0.8, 128), (0.9, 64)])
def test_alike_texts_share_a_band(similarity: float, permutations: int):
    """At the similarity that is asked for, few pairs are missed; far below it, few are compared."""
    how = Likeness(similarity=similarity, words=1, permutations=permutations)
    chance = random.Random(0)

    def compared(target: float) -> float:
        hits = 0
        for _ in range(200):
            common = frozenset(chance.getrandbits(64) for _ in range(round(400 * target)))
            rest = [chance.getrandbits(64) for _ in range(400 - len(common))]
            left = common | frozenset(rest[: len(rest) // 2])
            right = common | frozenset(rest[len(rest) // 2 :])
            assert abs(jaccard(left, right) - target) < 0.01
            bands = zip(band_hashes(left, how), band_hashes(right, how), strict=True)
            hits += any(a == b for a, b in bands)
        return hits / 200

    assert compared(similarity) > 0.93
    assert compared(similarity + 0.08) > 0.99
    assert compared(similarity / 3) < 0.2


def test_band_hashes_are_the_same_everywhere():
    """They are compared across processes and nodes, and decide what stays."""
    found = band_hashes(grams("one two three four five six", 3), HOW)
    assert len(found) == num_bands(HOW) == 18
    assert found[:2].tolist() == [18059748216492771930, 2210183134042648928]


def pairs(*given: tuple[str, str]) -> Any:
    """Pairs of samples: `h` before a number for one that is held out."""

    def read(name: str) -> tuple[int, bool]:
        return int(name.lstrip("h")), name.startswith("h")

    rows = []
    for left, right in given:
        (a, a_held), (b, b_held) = read(left), read(right)
        rows.append((a, b, a_held, b_held))
    return np.array(rows, PAIR)


def decided(*given: tuple[str, str]) -> dict[int, str]:
    samples, codes, held = decide(pairs(*given))
    assert len(samples) == len(codes) == len(held)
    return {int(s): selection.reason(int(c)) for s, c in zip(samples, codes, strict=True)}


def test_the_first_stays():
    assert decided(("3", "7"), ("7", "9")) == {7: "near duplicate", 9: "near duplicate"}
    assert decided(("1", "2"), ("5", "6")) == {2: "near duplicate", 6: "near duplicate"}
    assert decided() == {}


def test_what_is_held_out_stays_whatever_its_place():
    leak = "near duplicate of a held-out one"
    assert decided(("h9", "2"), ("2", "4")) == {2: leak, 4: leak}
    assert decided(("h9", "2"), ("h9", "h12")) == {2: leak, 12: "near duplicate"}


def test_a_unit_of_many_samples_is_signed_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The pairs that are found are the same ones."""
    texts = [f"{'one two three four five six seven eight ' * 3}{n // 4}" for n in range(20)]
    samples = [Sample(text=text).to_json() for text in texts]
    recipe = Recipe(name="r", base=Base(source="b"), data=Data(train=[]), train=Train(steps=1))

    def found(at_once: int) -> Any:
        monkeypatch.setattr(near, "_SIGNED_AT_ONCE", at_once)
        work = tmp_path / str(at_once) / "work"
        work.mkdir(parents=True)
        context = Context(recipe=recipe, work=work)
        for unit, part in enumerate((samples[:15], samples[15:], [])):
            table = pa.table(
                {"number": list(range(len(part))), "sample": part}, schema=cleaned.SAMPLES
            )
            with pa.ipc.new_file(cleaned.files_of(context, unit)[0], table.schema) as writer:
                writer.write_table(table)
            signing = near.Signing(number=unit, num_samples=len(part))
            report = near.sign_unit(signing, context)
            assert len(report["files"]) == -(-len(part) // at_once)
        every = judged.Range(number=0, begin=0, end=PREFIXES, num_units=3)
        near.join_range(every, context)
        return np.load(context.file(near.JOINED, 0, ".npy"))

    once = found(100)
    assert len(once) >= 19
    assert np.array_equal(found(4), once)
    monkeypatch.setattr(near, "_COMPARED_KEPT", 1)
    assert np.array_equal(found(3), once)
