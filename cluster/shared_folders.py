"""Whether all nodes see the same folders: proven by what each one writes and all others read."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from cluster.asking import Silent, ask
from cluster.asking import nodes as living
from recipes.errors import ClusterError, StorageError
from recipes.listing import listed

_TIMEOUT_S = 120.0
_CLEAR_S = 20.0
# A network file system may show a new file to others a little later.
_PATIENCE_S = 10.0
_ASK_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one node sees of a folder."""

    error: str = ""
    """Why nothing can be written there, if so."""
    unseen: tuple[str, ...] = ()
    """The nodes whose files it does not see there."""


def look(
    folders: Mapping[str, Path], asked: Collection[str]
) -> dict[str, dict[str, Sight] | Silent]:
    """What each of these nodes (Ray's ids) sees of folders, by node, then by the folder's key: who
    is apart from whom, where `check_shared` only tells whether somebody is.

    A node that does not answer has no part in it: nobody is asked for its files.
    """
    nonce = f".shoal-{uuid.uuid4().hex[:12]}"
    paths = list(folders.values())
    seen: dict[str, dict[str, Sight] | Silent] = {}
    try:
        written = ask(asked, _write, paths, nonce, timeout_s=_TIMEOUT_S)
        seen |= {node: told for node, told in written.items() if isinstance(told, Silent)}
        errors = {node: told for node, told in written.items() if node not in seen}
        for key, path in folders.items():
            writers = [node for node, told in errors.items() if not told[str(path)]]
            files = [f"{nonce}-{node}" for node in writers]
            for node, found in ask(errors, _read, [path], files, timeout_s=_TIMEOUT_S).items():
                sights = seen.setdefault(node, {})
                if isinstance(found, Silent) or isinstance(sights, Silent):
                    seen[node] = found if isinstance(found, Silent) else sights
                    continue
                pairs = zip(writers, found[str(path)], strict=True)
                unseen = tuple(writer for writer, is_seen in pairs if not is_seen)
                sights[key] = Sight(error=errors[node][str(path)], unseen=unseen)
    finally:
        ask(asked, _clear, paths, nonce, timeout_s=_CLEAR_S)
    return seen


def check_shared(folders: Mapping[str, Path]) -> None:
    """Check folders, each named by its key of the recipe.

    One node reads what all have written, and all read what that one has written: were two of them
    to see different folders, one would differ from the first's. That is two small files a node;
    each reading those of all others would be a million on a thousand nodes, at one file server.

    Raises `StorageError` that names the nodes which do not see a folder, cannot write into it, or
    see another one of the same name.
    """
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    nonce = f".shoal-{uuid.uuid4().hex[:12]}"
    paths = list(folders.values())
    try:
        written = _on_all(nodes, _write, paths, nonce)
        for name, folder in folders.items():
            _check_written(name, folder, {told[""]: told[str(folder)] for told in written})
        hosts = [told[""] for told in written]
        files = [f"{nonce}-{node}" for node in nodes]
        (of_all,) = _on_all(nodes[:1], _read, paths, files)
        of_first = _on_all(nodes[1:], _read, paths, files[:1])
        for name, folder in folders.items():
            check_read(
                name,
                folder,
                hosts,
                by_first=of_all[str(folder)],
                of_first=[told[str(folder)][0] for told in of_first],
            )
    finally:
        with suppress(ClusterError):
            _on_all(nodes, _clear, paths, nonce)


def check_seen(what: str, folder: Path, files: Mapping[str, int], way_out: str) -> None:
    """Check that all nodes see a folder with the same files, given with their sizes (bytes).

    Raises `StorageError` that names the nodes which do not.
    """
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    answers = _on_all(nodes, _see, folder, dict(files))
    blind = [f"{host} ({why})" for host, why in answers if why]
    if blind:
        raise StorageError(f"{what}: {folder} is not the same on {listed(blind)}. {way_out}")


def _check_written(name: str, folder: Path, errors: Mapping[str, str]) -> None:
    """`errors` by the name of the node."""
    bad = [f"{host} ({error})" for host, error in errors.items() if error]
    if bad:
        raise StorageError(f"{name} = {folder}: cannot be used on {listed(bad)}. {way_out(name)}")


def check_read(
    name: str,
    folder: Path,
    hosts: Sequence[str],
    *,
    by_first: Sequence[bool],
    of_first: Sequence[bool],
) -> None:
    """`by_first` tells which nodes' files the first has read, itself included, `of_first` which of
    the others have read the first's. Raises `StorageError`."""
    unseen = [host for host, seen in zip(hosts, by_first, strict=True) if not seen]
    blind = [host for host, seen in zip(hosts[1:], of_first, strict=True) if not seen]
    if not unseen and not blind:
        return
    what = (
        f"{hosts[0]} does not see what {listed(unseen)} wrote there"
        if unseen
        else f"what {hosts[0]} wrote there is not seen by {listed(blind)}"
    )
    raise StorageError(f"{name} = {folder}: {what}: each has a folder of its own. {way_out(name)}")


def way_out(name: str) -> str:
    """What to do about a folder that not every node sees."""
    also = ", or an s3:// address" if name == "storage.path" else ""
    return f"Name a folder that every node sees, such as one on a network file system{also}"


def _on_all(nodes: Sequence[str], function: Any, *arguments: Any) -> list[Any]:
    """What a remote function returns on each node. Raises `ClusterError` when one is silent."""
    found = ask(nodes, function, *arguments, timeout_s=_TIMEOUT_S)
    for node, answer in found.items():
        if isinstance(answer, Silent):
            raise ClusterError(
                f"{living().get(node, node)} cannot be asked whether it sees the storage: "
                f"{answer.why}"
            )
    return list(found.values())


@ray.remote(num_cpus=0, max_retries=0)
def _write(node: str, folders: Sequence[Path], nonce: str) -> dict[str, str]:
    """What goes wrong in each folder, if anything; and this node's name, under no folder's."""
    told = {"": socket.gethostname()}
    for folder in folders:
        try:
            (folder / f"{nonce}-{node}").write_text(node, encoding="utf-8")
            told[str(folder)] = ""
        except OSError as error:
            told[str(folder)] = error.strerror or str(error)
    return told


@ray.remote(num_cpus=0, max_retries=0)
def _read(node: str, folders: Sequence[Path], names: Sequence[str]) -> dict[str, list[bool]]:
    end = time.monotonic() + _PATIENCE_S
    while True:
        found = {
            str(folder): [_holds(folder / name, name.rpartition("-")[2]) for name in names]
            for folder in folders
        }
        if all(all(row) for row in found.values()) or time.monotonic() > end:
            return found
        time.sleep(_ASK_AGAIN_S)


def _holds(file: Path, text: str) -> bool:
    try:
        return file.read_text(encoding="utf-8") == text
    except OSError:
        return False


@ray.remote(num_cpus=0, max_retries=0)
def _see(node: str, folder: Path, files: Mapping[str, int]) -> tuple[str, str]:
    """This node's name, and what it lacks, if anything."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            wrong = [name for name, size in files.items() if (folder / name).stat().st_size != size]
            why = f"another {wrong[0]}" if wrong else ""
        except OSError as error:
            why = error.strerror or str(error)
        if not why or time.monotonic() > end:
            return socket.gethostname(), why
        time.sleep(_ASK_AGAIN_S)


@ray.remote(num_cpus=0, max_retries=0)
def _clear(node: str, folders: Sequence[Path], nonce: str) -> None:
    for folder in folders:
        with suppress(OSError):
            (folder / f"{nonce}-{node}").unlink(missing_ok=True)
