"""Near duplicates over all sources, and of what is held out.

Each unit signs the samples that are left; a task joins those of a range of hashes, and compares the
texts of samples that share a band. Which of those that belong together stays is decided at once for
all, on the driver, which holds about 34 bytes for each pair found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from launcher.prepare.shapes import Sample
from launcher.prepare.stages import cleaned, judged, selection
from launcher.prepare.stages.context import Context
from launcher.prepare.stages.runs import PREFIXES, prefixes, read_run, write_run
from launcher.prepare.stages.similarity import Likeness, band_hashes, grams, jaccard
from launcher.prepare.stages.stage import Report
from recipes.data import Data
from recipes.files import whole_path

SIGNED, JOINED, FOLDER = "sign", "join", "near"

BAND = np.dtype([("hash", "<u8"), ("index", "<u4"), ("held_out", "?")])
PAIR = np.dtype([("left", "<u8"), ("right", "<u8"), ("left_held", "?"), ("right_held", "?")])
"""Two samples that are near: unit << 32 | index among the unit's samples."""

# A group of one hash is compared with so many of its members that are not near one another.
_MOST_DIFFERENT = 16
_GRAMS_KEPT = 4096
# Two samples share a band more than once; pages of one make, which are all compared with so many,
# make thirty million pairs in a range.
_COMPARED_KEPT = 2**18
# Of a unit of any size, as large packed files are.
_SIGNED_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """A unit with the number of its samples."""

    number: int
    num_samples: int


def likeness(data: Data) -> Likeness:
    """What a recipe says of near duplicates."""
    return Likeness(
        similarity=data.near_similarity,
        words=data.near_words,
        permutations=data.near_permutations,
    )


def sign_unit(part: Signing, context: Context) -> Report:
    """Leave the band hashes of a unit's samples that no verdict has set aside; memory: about 1 KB
    for each of those that are signed at once."""
    how = likeness(context.recipe.data)
    codes = judged.codes_of(context, part.number, part.num_samples, (judged.FOLDER,))
    held = codes == selection.code(selection.HELD_OUT)
    left = np.flatnonzero(held | (codes == selection.code(selection.TRAIN)))
    column = cleaned.read_samples(context, part.number)["sample"]
    files = []
    for number, begin in enumerate(range(0, len(left), _SIGNED_AT_ONCE)):
        some = left[begin : begin + _SIGNED_AT_ONCE]
        hashes = [band_hashes(_grams(column[int(i)].as_py(), how.words), how) for i in some]
        bands = len(hashes[0])
        records = np.zeros(len(some) * bands, BAND)
        records["hash"] = np.concatenate(hashes)
        records["index"], records["held_out"] = np.repeat(some, bands), np.repeat(held[some], bands)
        files.append(context.file(SIGNED, part.number, f".{number}.bands"))
        with whole_path(files[-1]) as aside:
            write_run(aside, prefixes(records["hash"]), records, PREFIXES)
    return {"samples": part.num_samples, "files": context.named(*files)}


def _grams(sample: str, words: int) -> frozenset[int]:
    return grams(Sample.from_json(sample).texts(), words)


def join_range(part: judged.Range, context: Context) -> Report:
    """Find the pairs of near samples among those that share a band hash of one range."""
    files = sorted((context.work / SIGNED).glob("*.bands"))
    runs = [read_run(file, BAND, part.begin, part.end) for file in files]
    numbers = np.array([int(file.name.split(".")[0]) for file in files], np.uint64)
    units = np.repeat(numbers, [len(run) for run in runs])
    records = np.concatenate([np.zeros(0, BAND), *runs])
    ids = units << np.uint64(32) | records["index"]
    # What is held out comes first, then the order of the sources.
    order = np.lexsort((ids, ~records["held_out"], records["hash"]))
    ids, held, hashes = ids[order], records["held_out"][order], records["hash"][order]
    pairs = np.array(list(_pairs(ids, held, hashes, context)), PAIR)
    file = context.file(JOINED, part.number, ".npy")
    with whole_path(file) as aside, aside.open("wb") as stream:
        np.save(stream, pairs)
    return {"pairs": len(pairs), "files": context.named(file)}


def _pairs(
    ids: npt.NDArray[np.uint64],
    held: npt.NDArray[np.bool_],
    hashes: npt.NDArray[np.uint64],
    context: Context,
) -> Iterator[tuple[int, int, bool, bool]]:
    how = likeness(context.recipe.data)

    @lru_cache(maxsize=64)
    def column(unit: int) -> object:
        return cleaned.read_samples(context, unit)["sample"]

    @lru_cache(maxsize=_GRAMS_KEPT)
    def grams_of(sample: int) -> frozenset[int]:
        text = column(sample >> 32)[sample & 0xFFFFFFFF].as_py()  # type: ignore[index]
        return _grams(text, how.words)

    @lru_cache(maxsize=_COMPARED_KEPT)
    def is_near(left: int, right: int) -> bool:
        return jaccard(grams_of(left), grams_of(right)) >= how.similarity

    for begin, end in _groups(hashes):
        different: list[int] = []
        for place in range(begin, end):
            sample = int(ids[place])
            near = next((o for o in different if is_near(int(ids[o]), sample)), None)
            if near is not None:
                yield int(ids[near]), sample, bool(held[near]), bool(held[place])
            elif len(different) < _MOST_DIFFERENT:
                different.append(place)


def _groups(hashes: npt.NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Begin and end of every run of equal hashes that has more than one."""
    edges = np.flatnonzero(np.diff(hashes)) + 1
    bounds = np.concatenate([[0], edges, [len(hashes)]])
    for first in np.flatnonzero(np.diff(bounds) > 1):
        yield int(bounds[first]), int(bounds[first + 1])


def decide(
    pairs: npt.NDArray[np.void],
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """The samples to set aside, their verdicts, and whether they were held out, from all pairs.

    Of samples that are near, or near by way of others, the first stays: of those held out, if
    there are any, else of the others.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    both = np.concatenate([pairs["left"], pairs["right"]])
    both_held = np.concatenate([pairs["left_held"], pairs["right_held"]])
    samples, first, place = np.unique(both, return_index=True, return_inverse=True)
    held = both_held[first]
    if not len(samples):
        return samples, np.zeros(0, np.int8), held
    left, right = place[: len(pairs)], place[len(pairs) :]
    shape = (len(samples), len(samples))
    _, group = connected_components(
        coo_matrix((np.ones(len(pairs), np.bool_), (left, right)), shape=shape), directed=False
    )
    order = np.lexsort((samples, ~held, group))
    is_first = np.concatenate([[True], np.diff(group[order]) != 0])
    stays = order[is_first]
    group_held = np.zeros(group.max() + 1, np.bool_)
    group_held[group[held]] = True
    codes = np.where(
        ~held & group_held[group],
        selection.code(selection.NEAR_LEAK),
        selection.code(selection.NEAR),
    ).astype(np.int8)
    aside = np.ones(len(samples), np.bool_)
    aside[stays] = False
    return samples[aside], codes[aside], held[aside]


def leave_verdicts(context: Context, num_ranges: int, num_units: int) -> None:
    """Decide for all pairs that were found, and leave the verdicts."""
    files = [context.file(JOINED, number, ".npy") for number in range(num_ranges)]
    found = decide(np.unique(np.concatenate([np.load(file) for file in files])))
    for number, of_split in enumerate((~found[2], found[2])):
        samples, codes = found[0][of_split], found[1][of_split]
        judged.write_verdicts(
            context.file(FOLDER, number, ".verdicts"),
            (samples >> np.uint64(32)).astype(np.int64),
            (samples & np.uint64(0xFFFFFFFF)).astype(np.uint32),
            codes,
            num_units=num_units,
        )


def trained_verdicts(context: Context) -> Path:
    """The verdicts on samples that would be trained on."""
    return context.file(FOLDER, 0, ".verdicts")
