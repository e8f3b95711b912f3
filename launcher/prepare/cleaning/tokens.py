"""Lengths as the base's tokenizer counts them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from adapters.tokenizer import kept_tokenizer
from launcher.prepare.cleaning.filters import within
from launcher.prepare.unusable import Unusable
from recipes.data import steps


def tokens(step: steps.Tokens, folder: Path, new_tokens: Sequence[str]) -> Callable[[str], None]:
    """`folder` holds the tokenizer; special tokens of a template are not counted."""
    tokenizer = kept_tokenizer(folder, tuple(new_tokens))

    def check(text: str) -> None:
        try:
            encoded = tokenizer(text, add_special_tokens=False, verbose=False)
        except (TypeError, UnicodeEncodeError) as error:  # of a text with lone surrogates
            raise Unusable("tokens: no text", str(error)) from error
        within("tokens", len(encoded["input_ids"]), step.min, step.max)

    return check
