"""A base's tokenizer without transformers' class for it, and so without torch.

To load one by transformers takes 2.8 CPU-seconds, half of them for importing torch. What is needed
of it to prepare data is the backend, which package tokenizers reads in 0.05 seconds, and a few
facts. One process loads it by transformers, whose classes change some backends when they are
loaded, and leaves both in a folder; tasks read them from there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from tokenizers import Encoding, Tokenizer

from adapters.tokenizer import load_tokenizer
from recipes.errors import BaseModelError
from recipes.files import write_whole

Side = Literal["left", "right"]
Ids = list[int]

_BACKEND, _FACTS = "tokenizer.json", "facts.json"


class Backend(Protocol):
    """What makes tokens of texts. With `special`, those that the tokenizer puts around a text are
    among them."""

    def encode(self, text: str, *, special: bool) -> Encoding:
        """The tokens of a text, with `ids` and `offsets`: the characters that each stands for.

        Raises `BaseModelError` for a tokenizer that cannot say where its tokens stand.
        """

    def ids_of(self, texts: Sequence[str], *, special: bool) -> list[Ids]:
        """The ids of each text. Raises `TypeError` or `UnicodeEncodeError` for lone surrogates."""

    def pair(
        self, text: str, text_pair: str | None, length: int | None = None, side: Side = "right"
    ) -> tuple[Ids, Ids]:
        """Ids of one text or two with the special tokens, and of each token which of the two it is
        of; the latter empty where the tokenizer does not tell. With `length` at most so many: the
        longer of the two is cut first, on `side`."""


@dataclass(frozen=True, slots=True)
class _Rust:
    """Package tokenizers alone."""

    tokenizer: Tokenizer
    splits_special: bool
    has_types: bool

    def encode(self, text: str, *, special: bool) -> Encoding:
        return self._settled().encode(text, add_special_tokens=special)

    def ids_of(self, texts: Sequence[str], *, special: bool) -> list[Ids]:
        found = self._settled().encode_batch_fast(list(texts), add_special_tokens=special)
        return [encoding.ids for encoding in found]

    def pair(
        self, text: str, text_pair: str | None, length: int | None = None, side: Side = "right"
    ) -> tuple[Ids, Ids]:
        tokenizer = self._settled()
        if length is not None:
            tokenizer.enable_truncation(length, direction=side)
        # As transformers does it, an empty second text is none.
        found = tokenizer.encode(text, text_pair) if text_pair else tokenizer.encode(text)
        return found.ids, found.type_ids if self.has_types else []

    def _settled(self) -> Tokenizer:
        """Without what its file, the call before, or whoever shares it has set."""
        if self.tokenizer.truncation is not None:
            self.tokenizer.no_truncation()
        if self.tokenizer.padding is not None:
            self.tokenizer.no_padding()
        if self.tokenizer.encode_special_tokens != self.splits_special:
            self.tokenizer.encode_special_tokens = self.splits_special
        return self.tokenizer


@dataclass(frozen=True, slots=True)
class _Python:
    """A class of transformers that does more than its backend, or has none."""

    tokenizer: Any

    def encode(self, text: str, *, special: bool) -> Encoding:
        check_offsets(self.tokenizer)
        return _rust(self.tokenizer).encode(text, special=special)

    def ids_of(self, texts: Sequence[str], *, special: bool) -> list[Ids]:
        return [
            list(self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])
            for text in texts
        ]

    def pair(
        self, text: str, text_pair: str | None, length: int | None = None, side: Side = "right"
    ) -> tuple[Ids, Ids]:
        before = self.tokenizer.truncation_side
        self.tokenizer.truncation_side = side
        try:
            cut = {} if length is None else {"truncation": True, "max_length": length}
            found = self.tokenizer(text, text_pair, verbose=False, **cut)
        finally:
            self.tokenizer.truncation_side = before
        return list(found["input_ids"]), list(found.get("token_type_ids") or [])


def check_offsets(tokenizer: Any) -> None:
    """Raises `BaseModelError` for a tokenizer of transformers that cannot say where in a text its
    tokens stand."""
    if not tokenizer.is_fast:
        raise BaseModelError(
            f"{tokenizer.name_or_path}: {type(tokenizer).__name__} does not tell where in a text a "
            "token stands, so what is learnt cannot be marked. Give the base a tokenizer.json"
        )


def _rust(tokenizer: Any) -> _Rust:
    return _Rust(
        tokenizer=tokenizer.backend_tokenizer,
        splits_special=tokenizer.split_special_tokens,
        has_types="token_type_ids" in tokenizer.model_input_names,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class LightTokenizer:
    """A tokenizer as rendering needs it. `leave_tokenizer` and `left_tokenizer` bring one from one
    process to many; `of` makes one where transformers has loaded a tokenizer anyway."""

    bos_token_id: int | None
    eos_token_id: int | None
    special_tokens: Sequence[str]
    """All that are read as a special token wherever they stand in a text."""
    named_tokens: Mapping[str, str]
    """Those that templates are given, such as `bos_token`, by name."""
    chat_template: str | Mapping[str, str] | None
    """One, or several by name."""
    backend: Backend

    @classmethod
    def of(cls, tokenizer: Any) -> LightTokenizer:
        """Of a tokenizer of transformers, whose backend it shares."""
        backend = _rust(tokenizer) if _is_its_backend(tokenizer) else _Python(tokenizer)
        return cls(**_facts(tokenizer), backend=backend)

    @cached_property
    def special(self) -> re.Pattern[str] | None:
        """Finds the special tokens in a text, the longest where several begin."""
        found = sorted(self.special_tokens, key=lambda token: (-len(token), token))
        return re.compile("|".join(map(re.escape, found))) if found else None

    def template(self, tools: Sequence[Any] | None = None) -> str:
        """The chat template: of several the one for tools if there are some, else the default.

        Raises `ValueError` when there is none.
        """
        found = self.chat_template
        if found is None:
            raise ValueError("the tokenizer has no chat template")
        if isinstance(found, str):
            return found
        name = "tool_use" if tools is not None and "tool_use" in found else "default"
        if name not in found:
            raise ValueError(f"the tokenizer has no default chat template, only {sorted(found)}")
        return found[name]


def _facts(tokenizer: Any) -> dict[str, Any]:
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "special_tokens": sorted({*added, *tokenizer.all_special_tokens} - {""}),
        "named_tokens": dict(tokenizer.special_tokens_map),
        "chat_template": tokenizer.chat_template,
    }


def _is_its_backend(tokenizer: Any) -> bool:
    """Whether a call of a tokenizer of transformers is one of its backend."""
    from transformers import PreTrainedTokenizerFast

    kind = type(tokenizer)
    return isinstance(tokenizer, PreTrainedTokenizerFast) and all(
        getattr(kind, name) is getattr(PreTrainedTokenizerFast, name)
        for name in ("__call__", "_encode_plus", "set_truncation_and_padding")
    )


def leave_tokenizer(
    folder: Path,
    base_folder: Path,
    new_tokens: Sequence[str] = (),
    chat_template: str | None = None,
    *,
    with_offsets: bool = False,
) -> None:
    """Load a base's tokenizer by transformers, and leave in `folder` what tasks need of it.

    Raises `BaseModelError` when it cannot be read or, if asked for `with_offsets`, cannot say where
    its tokens stand.
    """
    tokenizer = load_tokenizer(base_folder, new_tokens, chat_template)
    if with_offsets:
        check_offsets(tokenizer)
    backend = _as_text(tokenizer)
    folder.mkdir(exist_ok=True)
    facts: dict[str, Any]
    if backend is None:
        facts = {"load": [str(base_folder), list(new_tokens), chat_template]}
    else:
        write_whole(folder / _BACKEND, backend)
        rust = _rust(tokenizer)
        options = {"splits_special": rust.splits_special, "has_types": rust.has_types}
        facts = {"facts": _facts(tokenizer), "backend": options}
    write_whole(folder / _FACTS, json.dumps(facts, ensure_ascii=False))


def _as_text(tokenizer: Any) -> str | None:
    """The backend of a tokenizer of transformers as a file has it; None where that is not all."""
    if not _is_its_backend(tokenizer):
        return None
    try:
        return str(tokenizer.backend_tokenizer.to_str())
    except Exception:  # of this very class, for parts that are written in Python
        return None


@cache
def left_tokenizer(folder: Path) -> LightTokenizer:
    """What `leave_tokenizer` has left in a folder, read once in a process. Where a tokenizer is
    more than its backend, it is loaded by transformers all the same."""
    found = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    if "load" in found:
        base_folder, new_tokens, chat_template = found["load"]
        return LightTokenizer.of(load_tokenizer(Path(base_folder), new_tokens, chat_template))
    backend = _Rust(Tokenizer.from_file(str(folder / _BACKEND)), **found["backend"])
    return LightTokenizer(**found["facts"], backend=backend)
