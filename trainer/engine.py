"""The model and DeepSpeed's engine of one rank."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import nn
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from adapters.attach import attach
from adapters.attached import Attached, Ranks, trainable
from adapters.base import LoadedBase
from adapters.checkpoint import TrainerState, checksum
from adapters.prompts import shift_of
from adapters.sharded import shape_of, whole
from adapters.tokenizer import load_tokenizer, read_template
from recipes.errors import CheckpointError
from recipes.recipe import Recipe
from trainer.device import choose_dtype
from trainer.kernels import Kernels, choose_kernels, put_into
from trainer.optimizers import build_optimizer, set_learning_rate
from trainer.order import Order
from trainer.zero_config import check_hpz, zero_config


@dataclass(slots=True, kw_only=True)
class Engine:
    """DeepSpeed's engine around a PEFT model, with what the loop needs to know of it."""

    deepspeed: Any
    attached: Attached
    optimizer: torch.optim.Optimizer
    optimizer_name: str
    stage: int
    device: torch.device
    bfloat16: bool
    kernels: Kernels
    shift: int | None
    """Positions by which virtual tokens before a text move its logits; None without any."""
    accumulation: int
    shapes: dict[str, torch.Size]
    """Of what is trained, by name, whole."""
    first_values: dict[str, int]
    """A checksum of each trained parameter before the first step; empty when going on."""
    sharded_loading: HfDeepSpeedConfig | None
    """Stage 3 only. PEFT gathers a sharded base only while this object is alive."""

    @property
    def model(self) -> nn.Module:
        return self.attached.model

    def precision(self) -> AbstractContextManager[Any]:
        """Computes in bfloat16 where that is the base's dtype; adapters themselves stay float32."""
        if self.bfloat16:
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of one of the step's micro-batches but the last."""
        self.deepspeed.backward(self._with_penalty(loss))
        self.deepspeed.step()  # counts the micro-batch; takes no optimizer step yet

    def backward_and_step(self, loss: torch.Tensor, learning_rate: float) -> float:
        """Add the last micro-batch's gradient and step; the L2 norm of the gradient, unclipped."""
        self.deepspeed.backward(self._with_penalty(loss))
        set_learning_rate(self.optimizer, learning_rate)
        norm = self._norm() if self.stage == 0 else None
        self.deepspeed.step()
        return float(norm if norm is not None else self.deepspeed.get_global_grad_norm())

    def _with_penalty(self, loss: torch.Tensor) -> torch.Tensor:
        ranks = self.attached.ranks
        return loss if ranks is None else loss + ranks.penalty()

    def _norm(self) -> float:
        # DeepSpeed keeps the norm only when one of its own optimizers is in use.
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients)) if gradients else math.nan


def build_engine(
    recipe: Recipe,
    load: Callable[[torch.dtype, str], LoadedBase],
    *,
    order: Order,
    num_steps: int,
    device: torch.device,
    state: TrainerState | None,
) -> Engine:
    """Load the base, attach the adapter, start DeepSpeed. Collective.

    `load` is given a dtype and the name of an attention kernel, and returns the frozen base; it is
    called once everything that shards it is set up. With a `state` the adapter begins with its
    values; the optimizer's own state is restored apart, by `trainer.state.restore`. Raises
    `CheckpointError` when the state is of another adapter or optimizer.
    """
    if state is not None:
        _check_optimizer(recipe, state)
    _adopt_process_group()
    dtype = choose_dtype(recipe.base, device)
    world_size = dist.get_world_size()
    check_hpz(recipe.zero, world_size)
    accumulation = order.accumulation(world_size)
    config = zero_config(
        recipe,
        num_workers=world_size,
        accumulation=accumulation,
        bfloat16=dtype == torch.bfloat16,
    )
    sharded_loading = HfDeepSpeedConfig(config) if recipe.zero.stage == 3 else None
    kernels = choose_kernels(recipe.base, recipe.task, dtype, device)
    base = load(dtype, kernels.attention)
    kernels = put_into(base.model, kernels)
    attached = attach(base, recipe.adapter, task=recipe.task, seed=recipe.seed, steps=num_steps)
    if recipe.data.chat_template is not None:
        attached = _with_template(attached, base, recipe.data.chat_template)
    model = attached.model
    if dtype == torch.bfloat16:
        _leave_casting_to_autocast(model)
    if state is not None:
        _begin_with(model, state)
    if sharded_loading is None:
        model.to(device)
    first_values = {}
    if state is None:
        first_values = {name: _checksum(p) for name, p in trainable(model).items()}
    shapes = {name: shape_of(p) for name, p in trainable(model).items()}
    optimizer = build_optimizer(trainable(model), recipe.train, device)
    if attached.ranks is not None:
        _lower_after_steps(optimizer, attached.ranks, first=state.step if state is not None else 0)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=config, dist_init_required=False
    )
    return Engine(
        deepspeed=engine,
        attached=attached,
        optimizer=optimizer,
        optimizer_name=recipe.train.optimizer,
        stage=recipe.zero.stage,
        device=device,
        bfloat16=dtype == torch.bfloat16,
        kernels=kernels,
        shift=shift_of(attached.config),
        accumulation=accumulation,
        shapes=shapes,
        first_values=first_values,
        sharded_loading=sharded_loading,
    )


def _with_template(attached: Attached, base: LoadedBase, file: str) -> Attached:
    """The recipe's own chat template is saved with the adapter, or whoever asks the adapter would
    write chats in another way than it was trained on."""
    tokenizer = load_tokenizer(base.folder, base.new_tokens, read_template(file))
    return replace(attached, tokenizer=tokenizer)


def _lower_after_steps(optimizer: torch.optim.Optimizer, ranks: Ranks, *, first: int) -> None:
    """While the gradients are still there, clipped as they were used: DeepSpeed clears them."""
    steps = itertools.count(first)
    optimizer.register_step_post_hook(lambda *_: ranks.lower(next(steps)))


def _checksum(parameter: nn.Parameter) -> int:
    with whole(parameter) as values:
        return checksum(values)


def _adopt_process_group() -> None:
    """Let DeepSpeed use torch's process group. Before a base is loaded: stage 3 shards it while it
    is read, and must know the other ranks."""
    # An empty list of what could be compiled. DeepSpeed would look here for kernels that add up in
    # shared memory, for inference only: half a minute of g++ on a CPU, and a lock file that hangs
    # the next start if this one is killed.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(dist_init_required=False)


def _leave_casting_to_autocast(model: nn.Module) -> None:
    """PEFT would turn every input of a float32 adapter into float32, and autocast it back."""
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False  # type: ignore[assignment]


def _check_optimizer(recipe: Recipe, state: TrainerState) -> None:
    if recipe.train.optimizer != state.optimizer_name:
        raise CheckpointError(
            f"checkpoint of step {state.step}: holds the state of {state.optimizer_name}, and the "
            f"recipe says train.optimizer = {recipe.train.optimizer}. Set it to "
            f"{state.optimizer_name}, or start a new run"
        )


def _begin_with(model: nn.Module, state: TrainerState) -> None:
    parameters = trainable(model)
    if parameters.keys() != state.master.keys():
        odd = sorted(parameters.keys() ^ state.master.keys())[:3]
        raise CheckpointError(
            f"checkpoint of step {state.step}: holds another adapter than the recipe's; "
            f"they differ in {', '.join(odd)}"
        )
    for name, parameter in parameters.items():
        if shape_of(parameter) != state.master[name].shape:
            raise CheckpointError(
                f"checkpoint of step {state.step}: {name} has the shape "
                f"{tuple(state.master[name].shape)}, the recipe's {tuple(shape_of(parameter))}"
            )
        with whole(parameter, write=True) as values:
            values.copy_(state.master[name])
