"""Several adapters of one base combined into one, by PEFT's weighted sums and merges."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from adapters.base import empty_base
from adapters.base_ref import BaseRef
from adapters.exported import ADAPTER_WEIGHTS
from recipes.errors import AdapterError, CheckpointError

_MADE = "combined"
# By kind of adapter what PEFT 0.21 can do; add_weighted_adapter is there for these two.
METHODS: Mapping[str, tuple[str, ...]] = {
    "LORA": (
        "cat",
        "svd",
        "linear",
        "ties",
        "ties_svd",
        "dare_linear",
        "dare_linear_svd",
        "dare_ties",
        "dare_ties_svd",
        "magnitude_prune",
        "magnitude_prune_svd",
    ),
    "IA3": ("linear",),
}
_OF_EQUAL_RANKS = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How adapters are combined."""

    weights: tuple[float, ...]
    method: str | None = None
    """One of METHODS; the first of the adapters' kind when left out."""
    density: float | None = None
    """Share of the numbers that ties, dare and magnitude_prune keep; 0.5 when left out."""
    rank: int | None = None
    """Of what svd methods make; the highest of the adapters' when left out."""
    seed: int = 0
    """Decides which numbers dare drops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """What came of it: `recipe` with all that was left out."""

    recipe: Recipe
    kind: str
    numbers: int
    rank: int | None


def combine(
    folders: Sequence[Path],
    recipe: Recipe,
    to: Path,
    *,
    base: BaseRef,
    base_folder: Path,
    task: str,
    device: torch.device,
) -> Combined:
    """Combine the adapters that PEFT opens in `folders`, and write one that it opens into `to`.

    No weight of the base is read: what is combined are the adapters' own matrices. Raises
    `AdapterError` when PEFT cannot combine them, with the reason and what it could, and
    `CheckpointError` when what was written does not open to the same values.
    """
    configs = [_config(folder) for folder in folders]
    recipe = _checked(recipe, configs)
    model = PeftModel.from_pretrained(
        _hollow(base_folder, task, device), str(folders[0]), "adapter0", torch_device=str(device)
    )
    names = ["adapter0"]
    for number, folder in enumerate(folders[1:], start=1):
        names.append(f"adapter{number}")
        model.load_adapter(str(folder), names[-1], torch_device=str(device))
    torch.manual_seed(recipe.seed)
    try:
        model.base_model.add_weighted_adapter(  # type: ignore[operator]
            names, list(recipe.weights), _MADE, **_options(recipe, configs)
        )
    except ValueError as error:
        raise AdapterError(f"--method = {recipe.method}: PEFT cannot: {error}") from error
    tensors = {
        name: tensor.detach().float().cpu().contiguous()
        for name, tensor in get_peft_model_state_dict(
            model, adapter_name=_MADE, save_embedding_layers=False
        ).items()
    }
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"--weights = {recipe.weights}: {name} would hold no numbers")
    _write(model.peft_config[_MADE], tensors, base, to)
    _check_opens(to, tensors, base_folder, task)
    rank = getattr(model.peft_config[_MADE], "r", None)
    numbers = sum(tensor.numel() for tensor in tensors.values())
    return Combined(recipe=recipe, kind=_kind(configs[0]), numbers=numbers, rank=rank)


def _config(folder: Path) -> PeftConfig:
    try:
        config: PeftConfig = PeftConfig.from_pretrained(str(folder))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(f"{folder}/adapter_config.json: cannot be read: {error}") from error
    return config


def _kind(config: PeftConfig) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def _checked(recipe: Recipe, configs: Sequence[Any]) -> Recipe:
    """The recipe with its method, after everything was refused that PEFT cannot do, or would do
    wrongly without a word."""
    kinds = sorted({_kind(config) for config in configs})
    if len(kinds) > 1:
        raise AdapterError(f"adapters of different kinds cannot be combined: {', '.join(kinds)}")
    [kind] = kinds
    if kind not in METHODS:
        raise AdapterError(
            f"PEFT does not combine adapters of the kind {kind}, only {' and '.join(METHODS)}"
        )
    if any(getattr(config, "use_dora", False) for config in configs):
        raise AdapterError("adapters with DoRA cannot be combined: PEFT would drop its magnitudes")
    if any(getattr(config, "trainable_token_indices", None) for config in configs):
        raise AdapterError(
            "adapters that train embeddings of tokens cannot be combined: PEFT would drop them"
        )
    if any(config.modules_to_save for config in configs):
        raise AdapterError(
            "adapters that have modules of their own, such as a head, cannot be combined: PEFT "
            "adds up matrices beside the base's, not modules in place of them"
        )
    method = recipe.method or METHODS[kind][0]
    if method not in METHODS[kind]:
        raise AdapterError(
            f"--method = {method}: PEFT does not know it for {kind}; it has "
            f"{', '.join(METHODS[kind])}"
        )
    ranks = [getattr(config, "r", 0) for config in configs]
    if method in _OF_EQUAL_RANKS and len(set(ranks)) > 1:
        raise AdapterError(
            f"--method = {method}: takes adapters of one rank, and these have "
            f"{', '.join(map(str, ranks))}. Use cat, svd, or another that ends with svd"
        )
    if method in _OF_EQUAL_RANKS and any(getattr(c, "rank_pattern", None) for c in configs):
        raise AdapterError(
            f"--method = {method}: takes adapters of one rank, and these have others in some "
            "modules. Use cat, svd, or another that ends with svd"
        )
    return Recipe(
        weights=recipe.weights,
        method=method,
        density=_density(recipe, method),
        rank=_rank(recipe, method, ranks),
        seed=recipe.seed,
    )


def _density(recipe: Recipe, method: str) -> float | None:
    if not method.startswith(("ties", "dare", "magnitude")):
        if recipe.density is not None:
            raise AdapterError(f"--density: --method = {method} keeps every number")
        return None
    return recipe.density if recipe.density is not None else 0.5


def _rank(recipe: Recipe, method: str, ranks: Sequence[int]) -> int | None:
    if not method.endswith("svd"):
        if recipe.rank is not None:
            raise AdapterError(f"--rank: --method = {method} leaves no choice of it")
        return None
    return recipe.rank or max(ranks)


def _options(recipe: Recipe, configs: Sequence[PeftConfig]) -> dict[str, Any]:
    """For add_weighted_adapter of the adapters' kind."""
    if _kind(configs[0]) == "IA3":
        return {}
    found: dict[str, Any] = {"combination_type": recipe.method, "density": recipe.density}
    if recipe.rank is not None:
        # Not whole square matrices of which all but a few columns are cut off.
        found |= {"svd_rank": recipe.rank, "svd_full_matrices": False}
    return found


def _hollow(folder: Path, task: str, device: torch.device) -> nn.Module:
    """The base's modules with weights of the right shapes that take no memory."""
    with torch.device("meta"):
        model = empty_base(folder, task=task)
    zero = torch.zeros(1, device=device)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            values = zero.expand(parameter.shape)
            setattr(module, name, nn.Parameter(values, requires_grad=False))
    return model


def _write(config: Any, tensors: dict[str, torch.Tensor], base: BaseRef, to: Path) -> None:
    saved = copy.copy(config)
    saved.inference_mode = True
    saved.base_model_name_or_path = base.source
    if hasattr(saved, "use_rslora"):
        # The scales went into the matrices; PEFT keeps the first adapter's way to scale.
        saved.use_rslora = False
    saved.save_pretrained(str(to))
    save_file(tensors, to / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def _check_opens(
    folder: Path, tensors: Mapping[str, torch.Tensor], base_folder: Path, task: str
) -> None:
    """Plain PEFT opens what was written, to what was combined and nothing else."""
    cpu = torch.device("cpu")
    try:
        model = PeftModel.from_pretrained(
            _hollow(base_folder, task, cpu), str(folder), torch_device=str(cpu)
        )
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{folder}: PEFT does not open what it made: {error}") from error
    opened = get_peft_model_state_dict(model, save_embedding_layers=False)
    for found in (load_file(folder / ADAPTER_WEIGHTS), opened):
        if found.keys() != tensors.keys() or not all(
            torch.equal(found[name], tensor) for name, tensor in tensors.items()
        ):
            raise CheckpointError(f"{folder}: does not open to what was combined")
