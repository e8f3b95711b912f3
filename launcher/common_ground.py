"""What all nodes must have in common, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapters.base_files import files_of
from launcher.terminal import Display
from recipes import address
from recipes.errors import StorageError
from recipes.recipe import Recipe


def make_folders(storage: str, cache: Path) -> dict[str, Path]:
    """The folders that every node must see, by the recipe's key, made if need be.

    Raises `StorageError` when one cannot be made.
    """
    folders = {"storage.cache": cache}
    if not address.is_address(storage):
        folders["storage.path"] = Path(storage)
    for name, folder in folders.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{name} = {folder}: cannot be made: {error.strerror}") from error
    return folders


def check_nodes(
    recipe: Recipe, folders: Mapping[str, Path], base_folder: Path, display: Display
) -> None:
    """Compare the nodes of the connected cluster: their software, and that they see the same
    `folders`, by the recipe's key, and the same base. What may pass is told.

    Raises `ClusterError` and `StorageError` that name the nodes.
    """
    from cluster.shared_folders import check_seen, check_shared
    from cluster.versions import check_versions

    if recipe.cluster.kind != "local":  # a Ray that was started here has what is here
        for difference in check_versions():
            display.line(f"Not all nodes have the same software. {difference}")
    check_shared(folders)
    check_seen(
        f"base.source = {recipe.base.source}",
        base_folder,
        files_of(base_folder),
        "Name a folder that every node sees; for a model of the hub, set HF_HUB_CACHE to one, such "
        f"as {recipe.storage.cache}/hub",
    )
