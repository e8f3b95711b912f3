"""The tensors of a checkpoint: what a step leaves behind, small and free of the worker count."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from adapters.base_ref import BaseRef
from adapters.checkpoint_folder import adapter_folder, folder_of, verify, write_manifest
from recipes.files import whole_folder

_STATE = Path("trainer_state/state.safetensors")

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerState:
    """Full float32 tensors on the CPU, by the name of the trainable parameter in the PEFT model."""

    step: int
    master: Tensors
    exp_avg: Tensors
    exp_avg_sq: Tensors


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
            for kind in ("master", "exp_avg", "exp_avg_sq")
            for name, tensor in getattr(state, kind).items()
        }
        _save_tensors(tensors, folder / _STATE)
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


def _save_tensors(tensors: Tensors, file: Path) -> None:
    try:
        save_file(tensors, file, metadata={"format": "pt"})
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
    tensors = load_file(folder / _STATE)
    return TrainerState(
        step=int(manifest["step"]),
        master=_of_kind(tensors, "master"),
        exp_avg=_of_kind(tensors, "exp_avg"),
        exp_avg_sq=_of_kind(tensors, "exp_avg_sq"),
    )


def _of_kind(tensors: Mapping[str, torch.Tensor], kind: str) -> Tensors:
    prefix = f"{kind}/"
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
