"""How long a sequence a base can take, checked before anything is prepared for it.

Learnt positions are a table of vectors, one for each place: there are no more. Where positions are
computed, as rotary ones are, any length can be, but the base has met none beyond its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.base_ref import locate, read_config
from launcher.plan.base_shape import Tensor, read_header, text_config
from recipes.adapter import VirtualTokens
from recipes.errors import BaseModelError, RecipeError
from recipes.recipe import Recipe

_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len")
_TABLE = re.compile(r"(^|\.)(position_embeddings|embed_positions|wpe)\.weight$")
# They count positions from the one after the padding token's.
_BEHIND_PADDING = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "roberta-prelayernorm",
    "camembert",
    "longformer",
    "mpnet",
    "data2vec-text",
    "xmod",
    "ibert",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """Tokens of the longest sequence that a base was made for, and whether it can take no more."""

    count: int
    are_learnt: bool


def positions_of(folder: Path) -> Positions | None:
    """What a base's files say; None where its configuration names no number. Reads no weight."""
    config = text_config(read_config(folder))
    count = next((int(config[name]) for name in _NAMES if config.get(name)), None)
    if count is None:
        return None
    if any(_TABLE.search(tensor.name) for tensor in _tensors(folder)):
        if config.get("model_type") in _BEHIND_PADDING:
            count -= int(config.get("pad_token_id") or 0) + 1
        return Positions(count=count, are_learnt=True)
    return Positions(count=_stretched(config, count), are_learnt=False)


def _tensors(folder: Path) -> Iterator[Tensor]:
    for file in sorted(folder.glob("*.safetensors")):
        yield from read_header(file)


def _stretched(config: Mapping[str, Any], count: int) -> int:
    """With what the configuration says of rotary positions that are pulled apart."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    own = found.get("original_max_position_embeddings", count)
    return max(count, int(own * float(found.get("factor") or 1.0)))


def check_length(recipe: Recipe, base_folder: Path, tell: Callable[[str], None]) -> None:
    """Raises `RecipeError` for sequences that are longer than the base can take; of those that are
    longer than what it was made for, a person is told."""
    length, before = recipe.data.sequence_length, 0
    if isinstance(recipe.adapter, VirtualTokens):
        before = recipe.adapter.tokens
    found = positions_of(base_folder)
    if found is None or length + before <= found.count:
        return
    what = f"data.sequence_length = {length:,}"
    if before:
        what += f", and {before} virtual tokens before it"
    if found.are_learnt:
        raise RecipeError(
            f"{what}: the base has learnt {found.count:,} positions, and cannot take more. Set "
            f"data.sequence_length={found.count - before}; data.too_long tells what becomes of "
            "longer samples"
        )
    tell(
        f"{what}: the base was made for {found.count:,} tokens. It can be trained on more, but "
        "knows nothing of such distances yet: lower it, or set rope_scaling in the base's "
        "config.json"
    )


def check_here(recipe: Recipe, tell: Callable[[str], None]) -> None:
    """The same where the base lies on this machine; of one that does not nothing is known yet."""
    with suppress(BaseModelError):
        folder = locate(recipe.base, Path(recipe.storage.cache), download=False)
        check_length(recipe, folder, tell)
