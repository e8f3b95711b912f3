"""The steps of data.clean: one class for each, its fields the step's options.

In a recipe a step is its name alone, or a mapping of its name to its options:
`- characters: {min: 12, max: 120}`.
"""

from __future__ import annotations

from collections.abc import Mapping

from recipes.data.steps.filters import (
    Characters,
    Digits,
    DropMatching,
    KeepMatching,
    Language,
    Repetition,
    Symbols,
    Tokens,
)
from recipes.data.steps.own import Call
from recipes.data.steps.rewriting import (
    CollapsePunctuation,
    CollapseWhitespace,
    NormalizeUnicode,
    RemovePunctuation,
    Replace,
    SimplifyChinese,
    StripControl,
    StripEmails,
    StripHtml,
    StripPhones,
    StripUrls,
)
from recipes.data.steps.step import CleaningStep
from recipes.data.steps.words import BoilerplateLines, Segment, StopWords

STEPS: Mapping[str, type[CleaningStep]] = {
    "normalize_unicode": NormalizeUnicode,
    "simplify_chinese": SimplifyChinese,
    "strip_control": StripControl,
    "strip_html": StripHtml,
    "strip_urls": StripUrls,
    "strip_emails": StripEmails,
    "strip_phones": StripPhones,
    "collapse_punctuation": CollapsePunctuation,
    "collapse_whitespace": CollapseWhitespace,
    "remove_punctuation": RemovePunctuation,
    "replace": Replace,
    "boilerplate_lines": BoilerplateLines,
    "characters": Characters,
    "tokens": Tokens,
    "language": Language,
    "symbols": Symbols,
    "digits": Digits,
    "repetition": Repetition,
    "drop_matching": DropMatching,
    "keep_matching": KeepMatching,
    "stop_words": StopWords,
    "segment": Segment,
    "call": Call,
}
"""Every step by its name, in the order of the documentation."""

__all__ = [
    "STEPS",
    "BoilerplateLines",
    "Call",
    "Characters",
    "CleaningStep",
    "CollapsePunctuation",
    "CollapseWhitespace",
    "Digits",
    "DropMatching",
    "KeepMatching",
    "Language",
    "NormalizeUnicode",
    "RemovePunctuation",
    "Repetition",
    "Replace",
    "Segment",
    "SimplifyChinese",
    "StopWords",
    "StripControl",
    "StripEmails",
    "StripHtml",
    "StripPhones",
    "StripUrls",
    "Symbols",
    "Tokens",
]
