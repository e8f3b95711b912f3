"""Optimizer state in and out of a DeepSpeed engine, whole and free of stage and worker count.

DeepSpeed's own checkpoints are tied to both. Private names of deepspeed 0.19 are used here and only
here; tests/trainer/test_state.py notices when they change.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import nn

from adapters.checkpoint import Tensors, TrainerState
from trainer.engine import Engine, trainable

_MOMENTS = ("exp_avg", "exp_avg_sq")


def gather(engine: Engine, step: int) -> TrainerState:
    """The whole state after `step` ≥ 1 steps, float32 on the CPU, on all ranks. Collective."""
    master: Tensors = {}
    moments: dict[str, Tensors] = {moment: {} for moment in _MOMENTS}
    for name, parameter in trainable(engine.model).items():
        master[name] = _to_cpu(_master(engine, parameter))
        for moment in _MOMENTS:
            moments[moment][name] = _to_cpu(_moment(engine, parameter, moment))
    return TrainerState(
        step=step, master=master, exp_avg=moments["exp_avg"], exp_avg_sq=moments["exp_avg_sq"]
    )


def _to_cpu(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().float().cpu().clone()


def _master(engine: Engine, parameter: nn.Parameter) -> torch.Tensor:
    if engine.stage == 0:
        return parameter
    return safe_get_full_fp32_param(parameter)  # type: ignore[no-any-return]


def _moment(engine: Engine, parameter: nn.Parameter, moment: str) -> torch.Tensor:
    if engine.stage == 0:
        return engine.optimizer.state[parameter][moment]  # type: ignore[no-any-return]
    return safe_get_full_optimizer_state(parameter, moment)  # type: ignore[no-any-return]


def restore(engine: Engine, state: TrainerState) -> None:
    """Give the optimizer the state it had. Collective.

    The adapter's values must have been given before the engine was built: DeepSpeed does not carry
    a changed master back into the parameters before the next step.
    """
    _begin_optimizer_state(engine, state.step)
    for name, parameter in trainable(engine.model).items():
        values = {moment: getattr(state, moment)[name] for moment in _MOMENTS}
        if engine.stage == 0:
            for moment, value in values.items():
                engine.optimizer.state[parameter][moment].copy_(value)
        elif engine.stage == 3:
            safe_set_local_fp32_param(parameter, _own_part(parameter, state.master[name]))
            for moment, value in values.items():
                safe_set_local_optimizer_state(parameter, _own_part(parameter, value), moment)
        else:
            safe_set_full_fp32_param(parameter, state.master[name].to(engine.device))
            for moment, value in values.items():
                safe_set_full_optimizer_state(parameter, value.to(engine.device), moment)
    engine.deepspeed.global_steps = state.step


def _begin_optimizer_state(engine: Engine, step: int) -> None:
    """AdamW makes its state at the first step; make it now, as it will be looked for."""
    # A fused AdamW keeps the step beside the parameter, the others on the CPU.
    fused = engine.optimizer.defaults["fused"]
    for master in _masters(engine):
        engine.optimizer.state[master] = {
            "step": torch.tensor(float(step), device=master.device if fused else "cpu"),
            "exp_avg": torch.zeros_like(master),
            "exp_avg_sq": torch.zeros_like(master),
        }
    link = getattr(engine.deepspeed.optimizer, "_lazy_init_hp_params_optimizer_state", None)
    if link is not None:  # stages 1 and 2 find the state of a parameter through this
        link()


def _masters(engine: Engine) -> list[torch.Tensor]:
    """The tensors that AdamW itself steps: parameters, or this rank's flat parts of them."""
    if engine.stage == 0:
        return list(trainable(engine.model).values())
    if engine.stage == 3:
        return list(engine.deepspeed.optimizer.fp32_partitioned_groups_flat)
    return list(engine.deepspeed.optimizer.single_partition_of_fp32_groups)


def _own_part(parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor that stage 3 shards: flat, padded to equal parts.

    DeepSpeed's own setter of whole tensors fails when the workers do not divide the tensor's size.
    """
    part = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
    padded = F.pad(value.flatten(), (0, part * dist.get_world_size() - value.numel()))
    return padded.narrow(0, part * dist.get_rank(), part).to(parameter.ds_tensor.device)  # type: ignore[attr-defined]
