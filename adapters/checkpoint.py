"""The tensors of a checkpoint: what a step leaves behind, small and free of the worker count."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from adapters.adalora import KINDS as RANK_KINDS
from adapters.attached import Attached, PeftAdapter, Tensors
from adapters.base_ref import BaseRef
from adapters.checkpoint_folder import (
    Origin,
    Position,
    adapter_folder,
    folder_of,
    verify,
    write_manifest,
)
from recipes.errors import CheckpointError, TrainingError
from recipes.files import whole_folder

_STATE = Path("trainer_state/state.safetensors")
_ADAPTER = "adapter_model.safetensors"
# Of a configuration, a manifest, and names and shapes of some thousand tensors.
_HEADER_BYTES = 2**21


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
    ranks: dict[str, Tensors] = field(default_factory=dict)
    """Likewise, of what moves ranks between modules."""


def adapter_of(
    attached: Attached, state: TrainerState, shapes: Mapping[str, torch.Size]
) -> PeftAdapter:
    """The adapter as it was in `state`. Not while the model computes: see `Attached.saved`.

    `shapes` are those of the adapter's parameters by name, as they were before any was sharded.

    Raises `CheckpointError` when `state` holds something else, `TrainingError` when what was
    trained is no number.
    """
    _check_values(state, shapes)
    return PeftAdapter(
        config=attached.config,
        tensors=attached.saved(state.master),
        tokenizer=attached.tokenizer,
    )


def save(
    checkpoints: Path,
    adapter: PeftAdapter,
    state: TrainerState,
    *,
    origin: Origin,
    position: Position,
    check: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Write a checkpoint, read it back, and publish it; its folder appears whole or not at all.

    `adapter` is what `adapter_of` makes of `state`. `check` is given the folder of the adapter
    before it is published, and may refuse it.

    Raises `StorageError` when it cannot be written, `CheckpointError` when it does not read back as
    it should.
    """
    final = folder_of(checkpoints, position.step)
    if final.is_dir():
        # Only a run that went on from an older checkpoint comes here again.
        shutil.rmtree(final)
    with whole_folder(final) as folder:
        adapter_folder(folder).mkdir()
        (folder / _STATE).parent.mkdir()
        written = _write_adapter(adapter_folder(folder), adapter, origin.base)
        tensors = _flat(state)
        _save_tensors(tensors, folder / _STATE, "optimizer", state.optimizer_name)
        write_manifest(folder, origin, position)
        verify(folder)
        _check_tensors(adapter_folder(folder) / _ADAPTER, written)
        _check_tensors(folder / _STATE, tensors)
        _check_size(folder, [*written.values(), *tensors.values()])
        check(adapter_folder(folder))
    return final


def _check_size(folder: Path, tensors: Sequence[torch.Tensor]) -> None:
    predicted = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    found = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    if not predicted <= found <= 1.05 * predicted + _HEADER_BYTES:
        raise CheckpointError(
            f"{folder}: takes {found:,} bytes, not {predicted:,}: it holds something else"
        )


def _check_values(state: TrainerState, shapes: Mapping[str, torch.Size]) -> None:
    if state.master.keys() != shapes.keys():
        odd = sorted(state.master.keys() ^ shapes.keys())[:3]
        raise CheckpointError(
            f"step {state.step}: what was gathered is not the adapter: {', '.join(odd)}"
        )
    for name, tensor in state.master.items():
        if tensor.shape != shapes[name] or tensor.numel() == 0:
            raise CheckpointError(
                f"step {state.step}: {name} was gathered with the shape {tuple(tensor.shape)}, "
                f"not {tuple(shapes[name])}; nothing is saved"
            )
        if not torch.isfinite(tensor).all():
            raise TrainingError(
                f"step {state.step}: {name} holds values that are no numbers; nothing is saved. "
                "Lower train.learning_rate, or warm up with train.warmup_steps"
            )


def _check_tensors(file: Path, expected: Tensors) -> None:
    """What was written is what is read: names, shapes, values, and nothing else."""
    found = load_file(file)
    if found.keys() != expected.keys():
        odd = sorted(found.keys() ^ expected.keys())[:3]
        raise CheckpointError(f"{file}: does not hold what was saved: {', '.join(odd)}")
    for name, tensor in expected.items():
        if not torch.equal(found[name], tensor):
            raise CheckpointError(f"{file}: {name} does not read back as it was written")


def _flat(state: TrainerState) -> Tensors:
    return {
        f"{kind}/{name}": tensor.contiguous()
        for kind, of_kind in {"master": state.master, **state.optimizer, **state.ranks}.items()
        for name, tensor in of_kind.items()
    }


def _write_adapter(folder: Path, adapter: PeftAdapter, base: BaseRef) -> Tensors:
    """The files that PEFT opens; returns the tensors as they lie there."""
    config = copy.copy(adapter.config)
    config.inference_mode = True
    config.base_model_name_or_path = base.source
    config.save_pretrained(str(folder))
    if adapter.tokenizer is not None:
        adapter.tokenizer.save_pretrained(str(folder))
    tensors = {name: tensor.contiguous() for name, tensor in adapter.tensors.items()}
    _save_tensors(tensors, folder / _ADAPTER, "format", "pt")
    return tensors


def _save_tensors(tensors: Tensors, file: Path, key: str, value: str) -> None:
    """`key` and `value` are the file's only metadata: several are written in a random order, and
    equal checkpoints are to be equal files."""
    try:
        save_file(tensors, file, metadata={key: value})
    except SafetensorError as error:  # which hides the OSError that it was
        raise OSError(str(error)) from error


def checksum(values: torch.Tensor) -> int:
    """The sum of the bits of a tensor's numbers: another one when any of them has changed."""
    bits = values.detach().float().contiguous().view(torch.int32)
    return int(bits.sum(dtype=torch.int64))


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
        ranks={kind: kinds.pop(kind) for kind in RANK_KINDS if kind in kinds},
        optimizer_name=optimizer_name,
        optimizer=kinds,
    )
