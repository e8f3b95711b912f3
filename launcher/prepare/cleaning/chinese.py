"""Traditional Chinese characters to simplified ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from recipes.data import steps

_SURROGATES = re.compile(r"([\ud800-\udfff]+)")


def simplify_chinese(step: steps.SimplifyChinese) -> Callable[[str], str]:
    convert = _converter(step.variant).convert

    def simplify(text: str) -> str:
        if text.isascii():
            return text
        try:
            return str(convert(text))
        except UnicodeEncodeError:  # OpenCC takes UTF-8, which holds no lone surrogates
            pieces = _SURROGATES.split(text)
            return "".join(p if n % 2 else convert(p) for n, p in enumerate(pieces))

    return simplify


@cache
def _converter(variant: str) -> Any:
    import opencc

    return opencc.OpenCC(variant)
