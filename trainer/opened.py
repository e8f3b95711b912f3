"""A base that is opened once in this process, and any number of adapters over it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import IA3Model, PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from adapters.base import load_base
from adapters.exported import ADAPTER_WEIGHTS
from adapters.prompts import shift_of
from adapters.quantization import quantization_of
from adapters.tokenizer import load_tokenizer, pad_token_id
from recipes.errors import AdapterError, CheckpointError
from trainer.device import choose_dtype, rank_device
from trainer.kernels import choose_kernels
from trainer.opening import Opening, check_adapter

# What PEFT keeps side by side in one model, each by its name; of other kinds one is there at a
# time. VeRA shares matrices between adapters, and LN tuning has one copy of a normalisation.
_SIDE_BY_SIDE = ("LORA", "IA3")


class OpenedBase:
    """A frozen base on this process's device, and adapters by the names they are given."""

    def __init__(self, opening: Opening, device: torch.device | None = None) -> None:
        """Raises `BaseModelError` when the folder does not hold a model for the task."""
        self.opening = opening
        self.device = device or rank_device()
        self.dtype = choose_dtype(opening.base, self.device)
        self.kernels = choose_kernels(opening.base, opening.task, self.dtype, self.device)
        self.tokenizer: Any = load_tokenizer(
            opening.folder, opening.base.new_tokens, opening.chat_template
        )
        self.pad_token_id = pad_token_id(self.tokenizer)
        quantization = quantization_of(opening.base, self.device)
        base: Any = load_base(
            opening.folder,
            opening.task,
            self.dtype,
            self.kernels.attention,
            labels=opening.labels,
            multi_label=opening.multi_label,
            quantization=quantization,
            allow_pickle=opening.base.allow_pickle,
            new_tokens=opening.base.new_tokens,
        ).model
        # One that is quantised is there already, and an 8-bit one does not move.
        self._base = base if quantization is not None else base.to(self.device)
        self._adapters: dict[str, _Adapter] = {}
        self._worn: PeftModel | None = None
        self._alone = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters, in the order they were added."""
        return tuple(self._adapters)

    @property
    def positions(self) -> int | None:
        """How many tokens the base takes, if it says so."""
        found = getattr(self._base.config, "max_position_embeddings", None)
        return int(found) if found else None

    def shift(self, name: str) -> int | None:
        """Positions by which an adapter's virtual tokens move those of a text; None without any."""
        return shift_of(self._adapters[name].config)

    def add(self, name: str, folder: Path) -> None:
        """Open one more adapter, from the folder of a checkpoint or of an export.

        Raises `CheckpointError` when it is not whole or was trained on another base, `AdapterError`
        when it does not fit.
        """
        inner = check_adapter(folder, self.opening.ref)
        key = f"shoal{len(self._adapters)}"  # PEFT takes no name with a dot in it
        self._adapters[name] = _Adapter(key=key, folder=inner, config=_config(inner))
        try:
            self._put_on(self._adapters[name])
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise AdapterError(f"{inner}: does not fit the base: {error}") from error

    @contextmanager
    def by(self, name: str | None) -> Iterator[Any]:
        """The model as it computes with an adapter, or without any, in the base's precision.

        For the thread that computes; one at a time, another waits.
        """
        with self._alone, torch.no_grad(), self._precision():
            if name is not None:
                yield self._put_on(self._adapters[name]).eval()
            elif self._worn is not None:
                with self._worn.disable_adapter():
                    yield self._worn.eval()
            else:
                yield self._base.eval()

    def _precision(self) -> Any:
        if self.dtype == torch.bfloat16:
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def _put_on(self, adapter: _Adapter) -> PeftModel:
        if self._worn is not None and adapter.key not in self._worn.peft_config:
            if self._fits_beside(adapter):
                self._worn.load_adapter(str(adapter.folder), adapter.key, **self._options())
                _check_values(self._worn, adapter)
            else:
                self._take_off()
        if self._worn is None:
            self._worn = PeftModel.from_pretrained(
                self._base,
                str(adapter.folder),
                adapter.key,
                config=adapter.config,
                **self._options(),
            )
            _check_values(self._worn, adapter)
        self._worn.set_adapter(adapter.key)
        return self._worn

    def _options(self) -> dict[str, Any]:
        return {"torch_device": str(self.device)}  # PEFT would take a GPU wherever there is one

    def _fits_beside(self, adapter: _Adapter) -> bool:
        assert self._worn is not None
        kinds = {_kind(config) for config in self._worn.peft_config.values()}
        return kinds == {adapter.kind} and adapter.kind in _SIDE_BY_SIDE

    def _take_off(self) -> None:
        assert self._worn is not None
        tuner: Any = self._worn.base_model
        if self._worn.active_peft_config.is_prompt_learning:
            self._base = tuner
        elif isinstance(tuner, IA3Model):
            # PEFT 0.21 refuses to unload it from a quantised base because it could not merge it.
            self._base = super(IA3Model, tuner)._unload_and_optionally_merge(merge=False)
        else:
            self._base = tuner.unload()
        self._worn = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adapter:
    key: str
    folder: Path
    config: PeftConfig

    @property
    def kind(self) -> str:
        return _kind(self.config)


def _kind(config: PeftConfig) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def _config(folder: Path) -> PeftConfig:
    try:
        config: PeftConfig = PeftConfig.from_pretrained(str(folder))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(f"{folder}/adapter_config.json: cannot be read: {error}") from error
    return config


def _check_values(model: PeftModel, adapter: _Adapter) -> None:
    """Every tensor of the file is in the model, and nothing is there that the file lacks: PEFT only
    warns."""
    held = get_peft_model_state_dict(model, adapter_name=adapter.key, save_embedding_layers=False)
    try:
        with safe_open(adapter.folder / ADAPTER_WEIGHTS, "pt") as file:
            stored = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{adapter.folder / ADAPTER_WEIGHTS}: is torn: {error}") from error
    found = {name: list(tensor.shape) for name, tensor in held.items()}
    if found != stored:
        odd = sorted(name for name in {*found, *stored} if found.get(name) != stored.get(name))
        raise AdapterError(
            f"{adapter.folder / ADAPTER_WEIGHTS}: does not fit the base: {', '.join(odd[:3])}"
        )
