"""Lengths as the base's tokenizer counts them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adapters.light_tokenizer import left_tokenizer
from launcher.prepare.cleaning.filters import within
from launcher.prepare.unusable import Unusable
from recipes.data import steps


def tokens(step: steps.Tokens, folder: Path) -> Callable[[str], None]:
    """In `folder` a tokenizer was left; special tokens of a template are not counted."""
    ids_of = left_tokenizer(folder).backend.ids_of

    def check(text: str) -> None:
        try:
            [ids] = ids_of([text], special=False)
        except (TypeError, UnicodeEncodeError) as error:  # of a text with lone surrogates
            raise Unusable("tokens: no text", str(error)) from error
        within("tokens", len(ids), step.min, step.max)

    return check
