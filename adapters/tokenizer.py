"""The base's tokenizer. transformers, and torch with it, is imported only to load one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.errors import BaseModelError, DataError


def load_tokenizer(
    folder: Path, new_tokens: Sequence[str] = (), chat_template: str | None = None
) -> Any:
    """The base's own fast tokenizer, with new tokens after those it has, and with another chat
    template (its text) if one is given."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelError(f"{folder}: holds no tokenizer that can be read: {error}") from error
    if new_tokens:
        tokenizer.add_tokens(list(new_tokens))
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def read_template(file: str | None) -> str | None:
    """The text of data.chat_template; None where the recipe names none. Raises `DataError`."""
    if file is None:
        return None
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.chat_template = {file}: cannot be read: {error}") from error


def saved_template(folder: Path) -> str | None:
    """The chat template that lies with an adapter, as it was trained; None where there is none."""
    file = folder / "chat_template.jinja"
    return file.read_text(encoding="utf-8") if file.is_file() else None


def pad_token_id(tokenizer: Any) -> int:
    """The token that fills up a batch; any will do for causal models, whose loss leaves it out."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0):
        if candidate is not None:
            return int(candidate)
    raise AssertionError("unreachable")


def chat_templates(folder: Path) -> list[str]:
    """The chat templates that lie with a tokenizer, without loading it; several have names, such as
    one for chats with tools."""
    configured = _json(folder / "tokenizer_config.json").get("chat_template")
    named = configured if isinstance(configured, list) else [{"template": configured}]
    named.append({"template": _json(folder / "chat_template.json").get("chat_template")})
    texts = [each.get("template") for each in named if isinstance(each, dict)]
    beside = [folder / "chat_template.jinja", *folder.glob("additional_chat_templates/*.jinja")]
    texts += [
        file.read_text(encoding="utf-8", errors="replace") for file in beside if file.is_file()
    ]
    return [text for text in texts if isinstance(text, str) and text]


def names_end(folder: Path) -> bool:
    """Whether a base names a token that ends what is said, told without loading it: its tokenizer
    does, or its configuration, where the tokenizer's class knows it by itself."""
    named = ("tokenizer_config.json", "special_tokens_map.json")
    if any(_json(folder / name).get("eos_token") for name in named):
        return True
    return _json(folder / "config.json").get("eos_token_id") is not None


def _json(file: Path) -> Mapping[str, Any]:
    """What a file says; nothing when there is none that can be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
