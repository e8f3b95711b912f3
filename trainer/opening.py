"""What is opened, and whether an adapter may be: told before anything heavy is. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.base_ref import BaseRef
from adapters.checkpoint_folder import adapter_folder, check_base, verify
from recipes.base import Base
from recipes.errors import CheckpointError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a process must know to open a base, on whatever node it runs."""

    base: Base
    folder: Path
    ref: BaseRef
    task: str
    labels: tuple[str, ...] = ()
    """Of a classification, in the order of their ids."""


def check_adapter(folder: Path, base: BaseRef) -> Path:
    """The part of a checkpoint, or of an exported folder, that PEFT opens, after every file was
    read back and the base compared. Nothing is unpickled.

    Raises `CheckpointError` that names the file.
    """
    check_base(folder, base)
    verify(folder)
    inner = adapter_folder(folder) if adapter_folder(folder).is_dir() else folder
    for name in (CONFIG, WEIGHTS):
        if not (inner / name).is_file():
            raise CheckpointError(f"{inner / name}: is missing; an adapter is read from no other")
    return inner
