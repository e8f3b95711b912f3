"""The tensors of a checkpoint: what a step leaves behind, small and free of the worker count."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from adapters.base_ref import BaseRef
from adapters.checkpoint_folder import adapter_folder, folder_of, verify, write_manifest
from recipes.files import whole_folder

_STATE = Path("trainer_state/state.safetensors")

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerState:
    """Full tensors on the CPU, by the name of the trainable parameter in the PEFT model."""

    step: int
    master: Tensors
    """The values, float32."""
    optimizer_name: str
    """`train.optimizer` of the recipe."""
    optimizer: dict[str, Tensors]
    """Kind of state, such as exp_avg, to what each parameter has of it; the optimizer decides on
    kinds, shapes and dtypes. A kind may be there for some parameters only."""


def save(
    checkpoints: Path,
    model: PeftModel,
    state: TrainerState,
    *,
    base: BaseRef,
    recipe_digest: str,
) -> Path:
    """Write the checkpoint of `state.step`; its folder appears whole or not at all.

    Raises `StorageError` when it cannot be written.
    """
    final = folder_of(checkpoints, state.step)
    if final.is_dir():
        # Only a run that went on from an older checkpoint comes here again.
        shutil.rmtree(final)
    with whole_folder(final) as folder:
        adapter_folder(folder).mkdir()
        (folder / _STATE).parent.mkdir()
        _write_adapter(adapter_folder(folder), model, state.master, base)
        tensors = {
            f"{kind}/{name}": tensor.contiguous()
            for kind, of_kind in {"master": state.master, **state.optimizer}.items()
            for name, tensor in of_kind.items()
        }
        _save_tensors(tensors, folder / _STATE, optimizer=state.optimizer_name)
        write_manifest(folder, step=state.step, base=base, recipe_digest=recipe_digest)
        verify(folder)
    return final


def _write_adapter(folder: Path, model: PeftModel, master: Tensors, base: BaseRef) -> None:
    config = model.peft_config["default"]
    trained_for = config.inference_mode
    config.inference_mode = True
    config.base_model_name_or_path = base.source
    config.save_pretrained(str(folder))
    config.inference_mode = trained_for
    tensors = get_peft_model_state_dict(model, state_dict=master, save_embedding_layers=False)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    _save_tensors(contiguous, folder / "adapter_model.safetensors")


def _save_tensors(tensors: Tensors, file: Path, **metadata: str) -> None:
    try:
        save_file(tensors, file, metadata={"format": "pt", **metadata})
    except SafetensorError as error:  # which hides the OSError that it was
        raise OSError(str(error)) from error


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of the values of CPU tensors, whatever their order (hex)."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].contiguous().numpy().tobytes())
    return total.hexdigest()


def load_state(folder: Path) -> TrainerState:
    """The trainer state of a checkpoint."""
    manifest = verify(folder)
    kinds: dict[str, Tensors] = {"master": {}}
    with safe_open(folder / _STATE, "pt") as file:
        # Checkpoints of before there was a choice do not name it.
        optimizer_name = (file.metadata() or {}).get("optimizer", "adamw")
        for key in file.keys():  # noqa: SIM118, it is no dictionary
            kind, _, name = key.partition("/")
            kinds.setdefault(kind, {})[name] = file.get_tensor(key)
    return TrainerState(
        step=int(manifest["step"]),
        master=kinds.pop("master"),
        optimizer_name=optimizer_name,
        optimizer=kinds,
    )
