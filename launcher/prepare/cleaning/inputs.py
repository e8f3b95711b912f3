"""What decides the result of cleaning besides the recipe and the texts: files and libraries."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from launcher.prepare.cleaning import own
from recipes.data import CleaningStep, steps
from recipes.errors import DataError

_LIBRARIES: Mapping[type[CleaningStep], tuple[str, ...]] = {
    steps.SimplifyChinese: ("opencc",),
    steps.Language: ("py3langid",),
    steps.StopWords: ("stopwordsiso", "jieba"),
    steps.Segment: ("jieba",),
}

_NEAR_LIBRARIES = ("datasketch", "jieba", "xxhash")


def step_files(recipe_steps: Sequence[CleaningStep]) -> list[Path]:
    """The files whose bytes take part in the result, in the order of the steps.

    Imports the modules of the user's own steps. Raises `DataError` for a file that is not there.
    """
    found: list[Path] = []
    for number, step in enumerate(recipe_steps):
        for option in step.paths:
            file = getattr(step, option)
            if file is None:
                continue
            if not Path(file).is_file():
                raise DataError(
                    f"data.clean[{number}].{option}: {file} is not there. It must lie where all "
                    "nodes see it"
                )
            found.append(Path(file))
        if isinstance(step, steps.Call):
            own.find_function(step.function)
            found.append(own.source_of(step.function))
    return found


def step_content(
    recipe_steps: Sequence[CleaningStep], digest: Callable[[Path], str]
) -> list[dict[str, Any]]:
    """The steps as they count for the key: what lies in a file counts, not where it lies."""
    found = []
    for step in recipe_steps:
        options = {leaf.name: getattr(step, leaf.name) for leaf in fields(step)}
        for option in step.paths:
            if options[option] is not None:
                options[option] = digest(Path(options[option]))
        if isinstance(step, steps.Call):
            _, _, name = step.function.rpartition(":")
            options["function"] = [digest(own.source_of(step.function)), name]
        found.append({step.name: options})
    return found


def step_versions(recipe_steps: Sequence[CleaningStep]) -> dict[str, str]:
    """The versions that can change the result, by name; the user's module too if it is installed.

    Python's Unicode tables are among them: each knows more characters than the one before.
    """
    if not recipe_steps:
        return {}
    names = {name for step in recipe_steps for name in _LIBRARIES.get(type(step), ())}
    for step in recipe_steps:
        if isinstance(step, steps.Call):
            names.update(_distributions(step.function))
    versions = {name: version(name) for name in sorted(names)}
    return {"unicode": unicodedata.unidata_version, **versions}


def near_versions() -> dict[str, str]:
    """The versions that can change which texts are near, by name."""
    return {
        "unicode": unicodedata.unidata_version,
        **{name: version(name) for name in _NEAR_LIBRARIES},
    }


def _distributions(function: str) -> Sequence[str]:
    place, _, _ = function.rpartition(":")
    if place.endswith(".py"):
        return ()
    return packages_distributions().get(place.partition(".")[0], ())
