"""What is opened, and whether an adapter may be: told before anything heavy is. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters import exported
from adapters.base_ref import BaseRef
from adapters.checkpoint_folder import adapter_folder, check_base
from adapters.exported import ADAPTER_CONFIG, ADAPTER_WEIGHTS, verify_export
from recipes.base import Base
from recipes.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a process must know to open a base, on whatever node it runs."""

    base: Base
    folder: Path
    ref: BaseRef
    task: str
    labels: tuple[str, ...] = ()
    """Of a classification, in the order of their ids."""
    chat_template: str | None = None
    """Text of the one to use instead of the tokenizer's own."""
    multi_label: bool = False
    """Whether a text can have several of them."""


def check_adapter(folder: Path, base: BaseRef) -> Path:
    """The part of a checkpoint, or of an exported folder, that PEFT opens, after every file was
    read back and the base compared. Nothing is unpickled.

    Raises `CheckpointError` that names the file.
    """
    check_base(folder, base)
    if adapter_folder(folder).is_dir():
        exported.check_adapter(folder)
        return adapter_folder(folder)
    files = verify_export(folder)["files"]
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if name not in files:
            raise CheckpointError(f"{folder / name}: is missing; this folder holds no adapter")
    return folder
