"""The base's tokenizer. transformers, and torch with it, is imported only to load one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipes.errors import BaseModelError


def load_tokenizer(folder: Path, new_tokens: Sequence[str] = ()) -> Any:
    """The base's own fast tokenizer, with new tokens after those it has."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelError(f"{folder}: holds no tokenizer that can be read: {error}") from error
    if new_tokens:
        tokenizer.add_tokens(list(new_tokens))
    return tokenizer


def pad_token_id(tokenizer: Any) -> int:
    """The token that fills up a batch; any will do for causal models, whose loss leaves it out."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0):
        if candidate is not None:
            return int(candidate)
    raise AssertionError("unreachable")


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer knows how a chat is written, without loading it."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    return bool(config.get("chat_template"))
