"""Which language a text is in, by py3langid, whose model is in its package."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from launcher.prepare.unusable import Dropped
from recipes.data import steps

_LOOKED_AT = 10_000
"""Characters; a megabyte takes a second, and changes nothing."""

# Short texts in standard Chinese are often taken for these, which are written with its characters.
_WRITTEN_AS = {"zh": ("zh", "wuu", "yue")}


def language(step: steps.Language) -> Callable[[str], None]:
    identifier = _identifier()
    wanted = {code for kept in step.keep for code in _WRITTEN_AS.get(kept, (kept,))}

    def check(text: str) -> None:
        if len(text) < step.min_characters:
            return
        ranked = identifier.rank(text[:_LOOKED_AT])
        probability = sum(share for code, share in ranked if code in wanted)
        if probability < step.min_probability:
            code, share = ranked[0]
            raise Dropped("language: another", f"{code} with probability {share:.2f}")

    return check


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
