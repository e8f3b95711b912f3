"""From token ids back to text, each special token as it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.errors import BaseModelError

_TORN = "\ufffd"
"""What stands for the bytes of half a character."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens in a row that are alike."""

    text: str
    learnt: bool
    special: bool


class Decoder:
    """Decodes with the tokenizer that a manifest names.

    A tokenizer.json is opened by itself, as importing transformers takes seconds and torch.
    """

    def __init__(self, base: Mapping[str, Any]) -> None:
        """Open it. Raises `BaseModelError` when it is no longer there."""
        folder = Path(base["folder"])
        if not folder.is_dir():
            raise BaseModelError(
                f"{folder}: the tokenizer that this data was prepared with ({base['source']}) is "
                "gone. Name the recipe instead of the key, or prepare again"
            )
        self._tokenizer: Any
        if (folder / "tokenizer.json").is_file():
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._tokenizer.add_tokens(list(base["new_tokens"]))
            added = self._tokenizer.get_added_tokens_decoder()
            named: Sequence[int] = ()
        else:
            from adapters.tokenizer import load_tokenizer

            loaded = load_tokenizer(folder, base["new_tokens"])
            # Those that transformers has in Python alone have no backend.
            self._tokenizer = loaded.backend_tokenizer if loaded.is_fast else loaded
            added, named = loaded.added_tokens_decoder, loaded.all_special_ids
        self._special = {number for number, token in added.items() if token.special}.union(named)

    def pieces(self, ids: Sequence[int], learnt: Sequence[bool]) -> list[Piece]:
        """The text of tokens, in pieces that are learnt or not, special or not."""
        kinds = [
            (is_learnt, token in self._special)
            for token, is_learnt in zip(ids, learnt, strict=True)
        ]
        ends = [at for at in range(1, len(ids)) if kinds[at] != kinds[at - 1]]
        ends += [len(ids)] if len(ids) else []
        found, begin, before = [], 0, 0
        for end in ends:
            # What a token adds depends on the one before it: a space, the rest of a character. A
            # character that the next piece completes is shown there.
            context = self._decode(ids[before:begin]).rstrip(_TORN)
            whole = self._decode(ids[before:end])
            if end < len(ids):
                whole = whole.rstrip(_TORN)
            follows = whole.startswith(context)
            text = whole[len(context) :] if follows else self._decode(ids[begin:end])
            is_learnt, is_special = kinds[begin]
            if text:
                found.append(Piece(text, is_learnt, is_special))
            before, begin = begin, end
        return found

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))
