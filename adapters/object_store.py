"""Objects below an address: put, get, list, delete. Says in one line what is wrong with a store.

Credentials and region are those of the usual AWS_* variables; AWS_ENDPOINT_URL_S3 or
AWS_ENDPOINT_URL name another server than Amazon's.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from recipes.address import in_bucket
from recipes.errors import StorageError

_PART_BYTES = 8 * 2**20
_PATIENCE_S = 60.0
# A server that is asked whether it is there at all answers at once or not in time.
_PROBE_TIMEOUT_S = 5.0
TIMEOUT_S = 30.0
"""An answer of a store that is known to be there."""
# What passes by itself, by the names and numbers that Amazon's library gives.
_PASSING = (
    "NETWORK_CONNECTION",
    "SLOW_DOWN",
    "SERVICE_UNAVAILABLE",
    "INTERNAL_FAILURE",
    "THROTTLING",
    "REQUEST_TIMEOUT",
    "HTTP status 500",
    "HTTP status 503",
)

T = TypeVar("T")


class ObjectStore:
    """The objects whose keys begin with `address` and a slash. Every method raises `StorageError`.

    An object appears whole or not at all; those listed are those that can be read.
    """

    def __init__(self, address: str, *, patience_s: float = _PATIENCE_S) -> None:
        """What fails for a reason that may pass is tried again for `patience_s`."""
        self.address = address
        self._root = in_bucket(address)
        self._patience_s = patience_s
        with _told(address):
            self._files = connect(TIMEOUT_S if patience_s else _PROBE_TIMEOUT_S)

    def put(self, name: str, content: bytes) -> None:
        def write() -> None:
            with self._writing(name) as stream:
                stream.write(content)

        self._try(name, write)

    def put_file(self, name: str, file: Path) -> None:
        """Upload a file of any size."""

        def write() -> None:
            # Opened first: a file that is not there must not become an empty object.
            with file.open("rb") as source, self._writing(name) as to:
                while part := source.read(_PART_BYTES):
                    to.write(part)

        self._try(name, write)

    def get(self, name: str) -> bytes | None:
        """The content of an object, or None when there is none of this name."""

        def read() -> bytes | None:
            try:
                with self._reading(name) as stream:
                    content: bytes = stream.read()
            except FileNotFoundError:
                return None
            return content

        return self._try(name, read)

    def get_file(self, name: str, file: Path) -> None:
        """Download an object of any size."""

        def read() -> None:
            with self._reading(name) as source, file.open("wb") as to:
                while part := source.read(_PART_BYTES):
                    to.write(part)

        file.parent.mkdir(parents=True, exist_ok=True)
        self._try(name, read)

    def names(self, below: str = "") -> list[str]:
        """Every object below a name, sorted."""
        return list(self.sizes(below))

    def sizes(self, below: str = "") -> dict[str, int]:
        """Every object below a name, sorted, with its size (bytes)."""
        listed = self._listed(below, recursive=True)
        return {name: size for name, size in listed if size is not None}

    def children(self, below: str = "") -> list[str]:
        """The first parts of the names below a name, sorted."""
        return [name for name, _ in self._listed(below, recursive=False)]

    def delete(self, name: str) -> None:
        """Delete one object, if it is there."""

        def delete() -> None:
            try:
                self._files.delete_file(self._path(name))
            except FileNotFoundError:
                return

        self._try(name, delete)

    def delete_below(self, name: str) -> None:
        """Delete every object below a name."""

        def delete() -> None:
            try:
                self._files.delete_dir(self._path(name))
            except FileNotFoundError:
                return

        self._try(name, delete)

    def check(self) -> None:
        """Write a small object, read it back and delete it."""
        name, content = f".shoal-{uuid.uuid4().hex}", b"shoal"
        self.put(name, content)
        try:
            if self.get(name) != content:
                raise StorageError(f"{self.address}: an object does not read back as written")
        finally:
            self.delete(name)

    def _listed(self, below: str, *, recursive: bool) -> list[tuple[str, int | None]]:
        """Names with sizes; what is only a part of names has none."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._path(below), recursive=recursive, allow_not_found=True)
        found = self._try(below, lambda: self._files.get_file_info(selector))
        sizes = [
            (info.path[len(self._root) + 1 :], info.size if info.type == FileType.File else None)
            for info in found
        ]
        return sorted(sizes, key=lambda one: one[0])

    # Arrow would pack and unpack what is called .gz.
    def _writing(self, name: str) -> Any:
        return self._files.open_output_stream(self._path(name), compression=None)

    def _reading(self, name: str) -> Any:
        return self._files.open_input_stream(self._path(name), compression=None)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _try(self, name: str, operation: Callable[[], T]) -> T:
        end, wait_s = time.monotonic() + self._patience_s, 1.0
        while True:
            try:
                with _told(f"{self.address}/{name}" if name else self.address):
                    return operation()
            except StorageError as error:
                passing = any(sign in str(error.__cause__) for sign in _PASSING)
                if not passing or time.monotonic() + wait_s > end:
                    raise
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, 10.0)


def connect(timeout_s: float, *, attempts: int = 1) -> Any:
    """pyarrow's filesystem of the store that the environment leads to; each request is tried
    `attempts` times."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    settings: dict[str, Any] = {}
    if endpoint:
        scheme, found, host = endpoint.rstrip("/").rpartition("://")
        settings["endpoint_override"] = host
        settings["scheme"] = scheme if found else "https"
        region = region or "us-east-1"
    if region:
        settings["region"] = region
    if authorities := os.environ.get("AWS_CA_BUNDLE"):
        settings["tls_ca_file_path"] = authorities
    return S3FileSystem(
        connect_timeout=min(timeout_s, 5.0),
        request_timeout=timeout_s,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=attempts),
        **settings,
    )


@contextmanager
def _told(where: str) -> Iterator[None]:
    """A store's error as one line with the fix."""
    try:
        yield
    except StorageError:
        raise
    except (OSError, ValueError) as error:  # Arrow's own are ValueErrors
        raise StorageError(f"{where}: {reason(str(error), 'storage.path')}") from error


def reason(text: str, key: str) -> str:
    """An error of the store with its fix; `key` of the recipe names the bucket."""
    if "NO_SUCH_BUCKET" in text:
        return f"there is no such bucket. Make it, or name another in {key}"
    if any(sign in text for sign in ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE", " 403")):
        return (
            "the server allows no such access. Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "the rights on the bucket"
        )
    if "NETWORK_CONNECTION" in text:
        server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return (
            f"{server or 'S3'} cannot be reached ({text.rpartition('Details: ')[2]}). "
            "Check AWS_ENDPOINT_URL and the network"
        )
    if "HTTP status 301" in text or "PERMANENT_REDIRECT" in text:
        return "the bucket is in another region. Name it with AWS_REGION"
    return " ".join(text.split())
