"""The optimizers to choose from: how each is built, and what a checkpoint holds of its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from recipes.errors import AdapterError
from recipes.train import Train
from trainer.eight_bit import EightBitState, eight_bit_adamw

Values = dict[str, torch.Tensor]
"""Kind of state to what one tensor has of it."""

State = dict[str, Any]
"""What an optimizer keeps beside one tensor."""

Group = dict[str, Any]
"""A parameter group of torch: its parameters, and values that hold for them alone."""

RATE_FACTOR = "rate_factor"
"""Key of a group: what the step's learning rate is multiplied by for its parameters."""


class StateForm(Protocol):
    """How the state that an optimizer keeps beside a tensor is written and read back.

    Under ZeRO 1 to 3 the optimizer steps flat parts of the parameters, so there `read` must give,
    and `begin` take, float32 tensors with an element for each element of what is stepped.
    """

    @property
    def kinds(self) -> tuple[str, ...]:
        """What `read` may give."""
        ...

    def read(self, state: Mapping[str, Any]) -> Values:
        """What has to be kept of the state."""
        ...

    def begin(self, stepped: torch.Tensor, values: Values, step: int, fused: bool) -> State:
        """The state of a tensor that was stepped `step` times, from what `read` gave."""
        ...

    def pack(self, values: Values) -> Values:
        """A whole parameter's values as they lie on disk."""
        ...

    def unpack(self, packed: Values) -> Values:
        """The inverse of `pack`."""
        ...


@dataclass(frozen=True, slots=True)
class PlainState:
    """Torch's own optimizers: tensors by name, and the number of steps."""

    kinds: tuple[str, ...]

    def read(self, state: Mapping[str, Any]) -> Values:
        return {kind: state[kind] for kind in self.kinds if kind in state}

    def begin(self, stepped: torch.Tensor, values: Values, step: int, fused: bool) -> State:
        # A fused AdamW keeps the step beside the parameter, the others on the CPU.
        counted = torch.tensor(float(step), device=stepped.device if fused else "cpu")
        copies = {kind: value.to(stepped.device, copy=True) for kind, value in values.items()}
        return {"step": counted, **copies}

    def pack(self, values: Values) -> Values:
        return values

    def unpack(self, packed: Values) -> Values:
        return packed


Parameters = Mapping[str, nn.Parameter]
"""What is trained, by name."""


def _adamw(parameters: Parameters, train: Train, device: torch.device) -> Optimizer:
    return torch.optim.AdamW(
        _groups(parameters, train),
        lr=train.learning_rate,
        betas=(train.betas[0], train.betas[1]),
        eps=train.eps,
        weight_decay=train.weight_decay,
        fused=device.type == "cuda",
    )


def _adamw_8bit(parameters: Parameters, train: Train, device: torch.device) -> Optimizer:
    return eight_bit_adamw(_groups(parameters, train), train)


def _adafactor(parameters: Parameters, train: Train, device: torch.device) -> Optimizer:
    # Adafactor scales a step by the size of the parameter, or by eps2 where that is larger
    # (arXiv:1804.04235, section 8). With the usual 1e-3, B matrices, which begin at zero, hardly
    # move; with 1 a step is as large as the learning rate says, as under the other optimizers.
    return torch.optim.Adafactor(
        _groups(parameters, train),
        lr=train.learning_rate,
        eps=(None, 1.0),
        weight_decay=train.weight_decay,
    )


def _muon(parameters: Parameters, train: Train, device: torch.device) -> Optimizer:
    matrices = {
        name: parameter
        for name, parameter in parameters.items()
        # Muon is meant for matrices inside the model, not for a head.
        if parameter.ndim == 2 and ".modules_to_save." not in name
    }
    others = {name: p for name, p in parameters.items() if name not in matrices}
    parts: list[Optimizer] = []
    if matrices:
        muon = torch.optim.Muon(
            _groups(matrices, train),
            lr=train.learning_rate,
            weight_decay=train.weight_decay,
            # Steps of the size of AdamW's, so that its learning rates hold (arXiv:2502.16982).
            adjust_lr_fn="match_rms_adamw",
        )
        parts.append(muon)
    if others:
        parts.append(_adamw(others, train, device))
    return Joined(parts)


class Joined(Optimizer):
    """Several optimizers of different parameters as one, since DeepSpeed takes one, of this class.

    They share groups and state with it, so what is changed here is changed there.
    """

    def __init__(self, parts: list[Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        self.param_groups = [group for part in parts for group in part.param_groups]
        for part in parts:
            part.state = self.state

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One value of `train.optimizer`."""

    build: Callable[[Parameters, Train, torch.device], Optimizer]
    state: StateForm


OPTIMIZERS: dict[str, Choice] = {
    "adamw": Choice(build=_adamw, state=PlainState(("exp_avg", "exp_avg_sq"))),
    "adamw_8bit": Choice(build=_adamw_8bit, state=EightBitState()),
    "adafactor": Choice(build=_adafactor, state=PlainState(("row_var", "col_var", "variance"))),
    "muon": Choice(build=_muon, state=PlainState(("momentum_buffer", "exp_avg", "exp_avg_sq"))),
}


def build_optimizer(parameters: Parameters, train: Train, device: torch.device) -> Optimizer:
    """The recipe's optimizer for what is trained.

    Raises `AdapterError` when LoRA+ is asked for and there are no B matrices.
    """
    if train.loraplus_ratio is not None and not any(map(_is_b, parameters)):
        raise AdapterError(
            f"train.loraplus_ratio = {train.loraplus_ratio}: this adapter has no B matrices. "
            "Leave train.loraplus_ratio out"
        )
    return OPTIMIZERS[train.optimizer].build(parameters, train, device)


def _groups(parameters: Parameters, train: Train) -> list[Group]:
    """One group, or with LoRA+ one for the B matrices and one for what else there is."""
    ratio = train.loraplus_ratio
    faster = [p for name, p in parameters.items() if ratio is not None and _is_b(name)]
    rest = [p for name, p in parameters.items() if ratio is None or not _is_b(name)]
    groups: list[Group] = [
        {"params": rest, RATE_FACTOR: 1.0},
        {"params": faster, RATE_FACTOR: ratio},
    ]
    return [group for group in groups if group["params"]]


def _is_b(name: str) -> bool:
    return ".lora_B." in name


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Before a step: the learning rate of each group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group[RATE_FACTOR]
