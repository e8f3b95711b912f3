"""Folders that leave the house: an adapter, or a model that it was merged into. Imports no torch.

README.md            the card; not sealed, because people write on it
recipe.yaml          resolved, as the run had it
manifest.json        what the checkpoint's says, over the files of this folder
adapter_config.json, adapter_model.safetensors    of an adapter, which PEFT opens
config.json, *.safetensors, tokenizer             of a merged model, which transformers opens
*.gguf                                            of one for llama.cpp
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from adapters.checkpoint_folder import (
    MANIFEST,
    adapter_folder,
    read_manifest,
    read_origin,
    read_position,
    verify,
    write_manifest,
)
from recipes.errors import CheckpointError
from recipes.files import sha256

CARD = "README.md"
RECIPE = "recipe.yaml"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# What a library that opens a folder may read, or run, without being told to.
_READ = ("*.safetensors", "*.gguf", "*.json", "*.model", "*.jinja", "*.py", *PICKLES)
_LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
_TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template*",
)

Kind = Literal["adapter", "merged model", "GGUF file"]


def is_export(folder: Path) -> bool:
    """Whether a folder was exported, whole or not; a run has no manifest of its own."""
    file = folder / MANIFEST
    if not file.is_file() or adapter_folder(folder).is_dir():
        return False
    if (folder / RECIPE).is_file() or (folder / ADAPTER_CONFIG).is_file():
        return True
    return b'"recipe_digest"' in file.read_bytes()


def kind_of(manifest: Mapping[str, Any]) -> Kind:
    """What an exported folder holds, told by its manifest."""
    names = manifest["files"]
    if ADAPTER_CONFIG in names:
        return "adapter"
    return "GGUF file" if any(name.endswith(".gguf") for name in names) else "merged model"


def verify_export(folder: Path) -> dict[str, Any]:
    """The manifest of an exported folder in which nothing is missing, altered, or of others.

    Raises `CheckpointError` that names the file. Notes and pictures may lie beside what was
    exported; what a library would read may not.
    """
    manifest = verify(folder)
    for pattern in _READ:
        for file in sorted(folder.glob(pattern)):
            if file.name not in (MANIFEST, *manifest["files"]):
                raise CheckpointError(
                    f"{file}: is no part of what was exported, and would be read. Take it away"
                )
    return manifest


def adapter_files(checkpoint: Path) -> dict[str, str]:
    """The files of a checkpoint's adapter, with the sha256 that its manifest has.

    Raises `CheckpointError` when one is missing, a pickle, or of somebody else.
    """
    folder = adapter_folder(checkpoint)
    files = {
        Path(name).name: digest
        for name, digest in read_manifest(checkpoint)["files"].items()
        if Path(name).parent == Path(folder.name)
    }
    for entry in sorted(folder.iterdir()):
        if entry.name not in files:
            raise CheckpointError(f"{entry}: is no part of the checkpoint. Take it away")
        if any(entry.match(pattern) for pattern in PICKLES):
            raise CheckpointError(f"{entry}: is a pickle, which can run code when it is read")
    for name in {ADAPTER_CONFIG, ADAPTER_WEIGHTS, *files}:
        if name not in files or not (folder / name).is_file():
            raise CheckpointError(f"{folder / name}: is missing from the checkpoint")
    return files


def check_adapter(checkpoint: Path) -> None:
    """Raises `CheckpointError` when a file of a checkpoint's adapter is not what was saved. What
    only training goes on with is not read: it may be many times as large."""
    for name, digest in adapter_files(checkpoint).items():
        file = adapter_folder(checkpoint) / name
        if sha256(file) != digest:
            raise CheckpointError(f"{file}: differs from what was saved")


def copy_adapter(checkpoint: Path, folder: Path) -> None:
    """Copy what PEFT opens, and a tokenizer if the checkpoint has one of its own."""
    for name, digest in adapter_files(checkpoint).items():
        shutil.copyfile(adapter_folder(checkpoint) / name, folder / name)
        if sha256(folder / name) != digest:
            raise CheckpointError(f"{folder / name}: is not what was saved in {checkpoint}")


def copy_tokenizer(base: Path, checkpoint: Path, folder: Path) -> None:
    """Copy the base's tokenizer, and over it what the checkpoint's adapter has of its own."""
    for place in (base, adapter_folder(checkpoint)):
        for file in _matching(place, _TOKENIZER):
            shutil.copyfile(file, folder / file.name)


def copy_licences(base: Path, folder: Path) -> None:
    """Most licences of a base ask to be handed on with what is made of it."""
    for file in _matching(base, _LICENCES):
        shutil.copyfile(file, folder / file.name)


def _matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    found = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    yield from sorted(found)


def name_base(folder: Path, base: str) -> None:
    """Let an adapter name another place of its base than the one it was trained on."""
    file = folder / ADAPTER_CONFIG
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def kind_of_adapter(folder: Path) -> str:
    """What PEFT calls the kind of an adapter, as it stands in its configuration."""
    file = folder / ADAPTER_CONFIG
    try:
        kind = json.loads(file.read_text(encoding="utf-8"))["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: names no kind of adapter: {error}") from error
    return str(kind)


def seal(
    folder: Path, checkpoint: Path, *, scores: Mapping[str, float], base: str | None = None
) -> None:
    """Write the manifest of a folder whose other files are all there, and read them back.

    `scores` are those of the checkpoint; `base` is another name of its base, of the same digest.
    """
    origin = read_origin(checkpoint)
    if base is not None:
        named = dataclasses.replace(origin.base, source=base, revision=None)
        origin = dataclasses.replace(origin, base=named)
    position = dataclasses.replace(read_position(checkpoint), scores=dict(scores))
    write_manifest(folder, origin, position, without=(CARD,))
    verify_export(folder)
