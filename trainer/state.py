"""Optimizer state in and out of a DeepSpeed engine, whole and free of stage and worker count.

DeepSpeed's own checkpoints are tied to both. Private names of deepspeed 0.19 are used here and only
here; tests/trainer/test_state.py notices when they change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from adapters.attached import Tensors, trainable
from adapters.checkpoint import TrainerState
from trainer.engine import Engine
from trainer.optimizers import OPTIMIZERS, Values

# Elements that are added up at once: as large as a network likes, and no second adapter in memory.
_BUCKET = 2**24


@torch.no_grad()
def gather(engine: Engine, step: int) -> TrainerState | None:
    """The whole state after `step` ≥ 1 steps, in host memory on rank 0. Collective.

    The other ranks, which only give their parts, get None.
    """
    form = OPTIMIZERS[engine.optimizer_name].state
    wanted = dist.get_rank() == 0
    if engine.stage == 0 and not wanted:
        return None
    master: Tensors = {}
    kinds: dict[str, Tensors] = {}
    for name, whole, values in _as_it_is(engine) if engine.stage == 0 else _put_together(engine):
        master[name] = _copy(whole).float()
        for kind, tensor in form.pack(values).items():
            kinds.setdefault(kind, {})[name] = _copy(tensor)
    if not wanted:
        return None
    ranks = engine.attached.ranks
    return TrainerState(
        step=step,
        master=master,
        optimizer_name=engine.optimizer_name,
        optimizer=kinds,
        ranks=ranks.state() if ranks is not None else {},
    )


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().clone()


def _as_it_is(engine: Engine) -> Iterator[tuple[str, torch.Tensor, Values]]:
    """Stage 0: each parameter by name, with its values and its state."""
    form = OPTIMIZERS[engine.optimizer_name].state
    for name, parameter in trainable(engine.model).items():
        yield name, parameter, form.read(engine.optimizer.state[parameter])


def _put_together(engine: Engine) -> Iterator[tuple[str, torch.Tensor, Values]]:
    """Stages 1 to 3: the same on rank 0, from the parts of all ranks. Nothing on the others."""
    form = OPTIMIZERS[engine.optimizer_name].state
    masters = _masters(engine)
    states = [form.read(engine.optimizer.state[master]) for master in masters]
    for bucket in _buckets(engine):
        wholes = _add_up(engine, bucket, masters)
        values = {
            kind: _add_up(engine, bucket, [state[kind] for state in states]) for kind in form.kinds
        }
        for name, whole in wholes.items():
            yield name, whole, {kind: tensors[name] for kind, tensors in values.items()}


def _buckets(engine: Engine) -> Iterator[dict[str, _Part]]:
    """What this rank steps of all parameters, by name, some at a time."""
    bucket: dict[str, _Part] = {}
    elements = 0
    for name, parameter in trainable(engine.model).items():
        bucket[name] = part = _own_part(engine, parameter)
        elements += part.shape.numel()
        if elements >= _BUCKET:
            yield bucket
            bucket, elements = {}, 0
    if bucket:
        yield bucket


def _add_up(engine: Engine, bucket: dict[str, _Part], masters: list[torch.Tensor]) -> Tensors:
    """Whole parameters, float32, on rank 0; adding nothing but zeros to an element changes none."""
    sizes = [part.shape.numel() for part in bucket.values()]
    row = torch.zeros(sum(sizes), device=engine.device)
    for whole, part in zip(row.split(sizes), bucket.values(), strict=True):
        whole[part.of_parameter] = masters[part.master][part.of_master].to(engine.device)
    dist.reduce(row, dst=0)
    if dist.get_rank() != 0:
        return {}
    wholes = zip(bucket.items(), row.cpu().split(sizes), strict=True)
    return {name: whole.reshape(part.shape) for (name, part), whole in wholes}


@torch.no_grad()
def restore(engine: Engine, state: TrainerState) -> None:
    """Give the optimizer the state it had. Collective.

    The adapter's values must have been given before the engine was built: DeepSpeed does not carry
    a changed master back into the parameters before the next step.
    """
    form = OPTIMIZERS[engine.optimizer_name].state
    fused = any(group.get("fused") for group in engine.optimizer.param_groups)
    whole = {name: form.unpack(_of_parameter(state, name)) for name in state.master}
    if engine.stage == 0:
        for name, parameter in trainable(engine.model).items():
            engine.optimizer.state[parameter] = form.begin(
                parameter, whole[name], state.step, fused
            )
    else:
        masters = _masters(engine)
        states = [{kind: torch.zeros_like(m) for kind in form.kinds} for m in masters]
        for name, parameter in trainable(engine.model).items():
            part = _own_part(engine, parameter)
            _put(masters[part.master], part, state.master[name])
            for kind, values in whole[name].items():
                _put(states[part.master][kind], part, values)
        for master, begun in zip(masters, states, strict=True):
            engine.optimizer.state[master] = form.begin(master, begun, state.step, fused)
    if engine.attached.ranks is not None:
        engine.attached.ranks.restore(state.ranks)
    engine.deepspeed.global_steps = state.step


def _of_parameter(state: TrainerState, name: str) -> Values:
    return {kind: tensors[name] for kind, tensors in state.optimizer.items() if name in tensors}


def _put(master: torch.Tensor, part: _Part, values: torch.Tensor) -> None:
    master[part.of_master] = values.flatten()[part.of_parameter].to(master.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What this rank steps of a parameter, which may be nothing."""

    shape: torch.Size
    """Of the whole parameter."""
    master: int
    """Which of the masters holds it."""
    of_master: slice
    of_parameter: slice
    """Elements of the flat parameter."""


def _masters(engine: Engine) -> list[torch.Tensor]:
    """This rank's flat tensors, which the optimizer steps in place of parameters (stages 1 to 3).

    float32, in host memory with `zero.offload_optimizer`.
    """
    if engine.stage == 3:
        return list(engine.deepspeed.optimizer.fp32_partitioned_groups_flat)
    return list(engine.deepspeed.optimizer.single_partition_of_fp32_groups)


def _own_part(engine: Engine, parameter: nn.Parameter) -> _Part:
    return _part_of_stage_3(engine, parameter) if engine.stage == 3 else _part_of_run(parameter)


def _part_of_stage_3(engine: Engine, parameter: nn.Parameter) -> _Part:
    """Stage 3 cuts each parameter into equal parts, the last ones padded."""
    sharded = engine.deepspeed.optimizer
    master, start, room = sharded.grad_position[sharded.get_param_id(parameter)]
    shape: torch.Size = parameter.ds_shape  # type: ignore[attr-defined]
    first = min(room * dist.get_rank(), shape.numel())
    size = min(room, shape.numel() - first)
    return _part(shape, master, start, first, size)


def _part_of_run(parameter: nn.Parameter) -> _Part:
    """Stages 1 and 2 put the parameters of a group one after another, and cut the row."""
    link = parameter._hp_mapping  # type: ignore[attr-defined]
    if link is None:  # all of it lies with other ranks
        return _part(parameter.shape, 0, 0, 0, 0)
    there, here = link.hp_fragment_address, link.lp_fragment_address
    return _part(parameter.shape, link.param_group_index, there.start, here.start, here.numel)


def _part(shape: torch.Size, master: int, start: int, first: int, size: int) -> _Part:
    return _Part(
        shape=shape,
        master=master,
        of_master=slice(start, start + size),
        of_parameter=slice(first, first + size),
    )
