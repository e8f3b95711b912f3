"""The samples there are, where each lies, and making one.

    CACHE/samples/<name>/    the sample, whole, with sample.json listing its files

A sample is made in a hidden folder beside its place and moved there by one rename.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.samples import movie_reviews, multilingual_e5, reviews_zh, smollm2
from launcher.samples.packages import Package
from recipes.errors import DataError, StorageError

MANIFEST = "sample.json"


@dataclass(frozen=True, slots=True)
class Sample:
    """A model or data set that `shoal` can make on this machine."""

    name: str
    description: str
    licence: str
    size_mb: float
    """On disk when made, in 10^6 bytes; making it needs about twice as much for a moment."""
    package: Package
    make: Callable[[Path, Callable[[str], None]], Path]
    """Given an empty folder to work in and where to report, returns the finished folder in it."""


SAMPLES: dict[str, Sample] = {
    sample.name: sample
    for sample in (
        Sample(
            name="smollm2-135m-instruct",
            description="English chat model, 135 M parameters, 8k context",
            licence="Apache-2.0",
            size_mb=273,
            package=smollm2.PACKAGE,
            make=smollm2.make,
        ),
        Sample(
            name="multilingual-e5-small",
            description="text encoder for 100 languages, 118 M parameters, 512 tokens",
            licence="MIT",
            size_mb=487,
            package=multilingual_e5.PACKAGE,
            make=multilingual_e5.make,
        ),
        Sample(
            name="movie_reviews",
            description="English film snippets with a clear verdict, as chat rows",
            licence="MIT (package); text by the critics, from Rotten Tomatoes",
            size_mb=1.5,
            package=movie_reviews.PACKAGE,
            make=movie_reviews.make,
        ),
        Sample(
            name="reviews_zh",
            description="Chinese reviews labelled positive or negative, raw, half duplicates",
            licence="MIT (package); text by customers of shopping sites",
            size_mb=8.6,
            package=reviews_zh.PACKAGE,
            make=reviews_zh.make,
        ),
    )
}


def names() -> list[str]:
    """Return the names of all samples."""
    return list(SAMPLES)


def path(name: str, cache: Path) -> Path:
    """Return where the sample lies, or would lie. Raises DataError for an unknown name."""
    _sample(name)
    return cache / "samples" / name


def is_ready(name: str, cache: Path) -> bool:
    """Tell whether the sample lies there whole: every listed file, at its listed size."""
    return _is_whole(path(name, cache))


def make(name: str, cache: Path, progress: Callable[[str], None]) -> bool:
    """Make the sample unless it is ready; return whether there was something to do.

    A folder in its place that is not whole is replaced. When two processes make the same sample,
    the first to finish wins and the other's work is dropped. Raises DataError for an unknown name
    or a package that is not as expected, StorageError when it cannot be fetched or written.
    """
    sample = _sample(name)
    place = path(name, cache)
    if _is_whole(place):
        return False
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=place.parent) as work:
            made = sample.make(Path(work), progress)
            _share_files(made)
            _write_manifest(sample, made)
            return _move(made, place, Path(work) / "replaced")
    except (DataError, StorageError):
        raise
    except OSError as error:
        raise StorageError(f"Cannot make the sample {name} in {place}: {error}") from error


def _sample(name: str) -> Sample:
    if name not in SAMPLES:
        raise DataError(f"There is no sample {name!r}; there are {', '.join(SAMPLES)}.")
    return SAMPLES[name]


def _share_files(folder: Path) -> None:
    """Let everyone read the files: safetensors writes them for their owner alone."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(file.stat().st_mode | 0o444)


def _write_manifest(sample: Sample, folder: Path) -> None:
    sizes = {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    content = {
        "name": sample.name,
        "licence": sample.licence,
        "package": sample.package.pin,
        "package_sha256": sample.package.sha256,
        "size_bytes_of_files": sizes,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes: dict[str, int] = manifest["size_bytes_of_files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _move(made: Path, place: Path, replaced: Path) -> bool:
    """Rename `made` to `place`, an unfinished folder there to `replaced`; False if it was made."""
    if _is_whole(place):
        return False
    if place.exists():
        place.rename(replaced)
    try:
        os.rename(made, place)
    except OSError:
        if _is_whole(place):  # another process was faster in between
            return False
        raise
    shutil.rmtree(replaced, ignore_errors=True)
    return True
