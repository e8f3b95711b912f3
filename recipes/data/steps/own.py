"""The step that is a function of the user's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from recipes.data.steps.step import CleaningStep
from recipes.problem import Problem

_FUNCTION = re.compile(r"(?:.+\.py|\w+(?:\.\w+)*):[^\W\d]\w*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(CleaningStep):
    """Your own step: a function from a text to a text, or to None, which drops the row."""

    function: str
    """`file.py:name` or `module:name`; it is called as `name(text, **options)`."""

    options: dict[str, Any] = field(default_factory=dict)
    """What it is given besides the text, by name."""

    functions: ClassVar[tuple[str, ...]] = ("function",)

    def problems(self, place: str) -> Iterator[Problem]:
        if not _FUNCTION.fullmatch(self.function):
            yield Problem(
                path=f"{place}.function",
                value=self.function,
                message="names no function",
                allowed="file.py:function or module:function",
            )
        if "text" in self.options:
            yield Problem(
                path=f"{place}.options.text", message="is what the function is given anyway"
            )
