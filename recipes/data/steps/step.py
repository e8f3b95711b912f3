"""What every step of data.clean has: a name, options, and how both stand in a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, ClassVar

from recipes.problem import Problem, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class CleaningStep:
    """One step; each text of a row goes through all of them in the recipe's order."""

    described: ClassVar[str] = "the name of a step, or with its options"

    paths: ClassVar[tuple[str, ...]] = ()
    """Options that hold paths."""

    functions: ClassVar[tuple[str, ...]] = ()
    """Options that name a function: `file.py:function` or `module:function`."""

    @classmethod
    def kind_of(cls, value: Any, place: str, problems: list[Problem]) -> type[CleaningStep] | None:
        """The class of a step as it stands in a recipe; None after a problem."""
        from recipes.data.steps import STEPS  # which is made of the classes below this one

        if isinstance(value, Mapping) and len(value) == 1:
            value = next(iter(value))
        if not isinstance(value, str):
            problems.append(
                Problem(
                    path=place,
                    value=value,
                    message="is no step",
                    allowed="the name of a step, or one name with its options",
                )
            )
            return None
        if value not in STEPS:
            hint = did_you_mean(value, STEPS) or f"Known: {', '.join(STEPS)}"
            problems.append(Problem(path=place, value=value, message="is no step", hint=hint))
            return None
        return STEPS[value]

    @staticmethod
    def options_of(value: Any) -> Any:
        """The options of a step as it stands in a recipe, a mapping if all is well."""
        return {} if isinstance(value, str) else next(iter(value.values())) or {}

    @property
    def name(self) -> str:
        """What the step is called in a recipe and in counts."""
        return re.sub(r"(?<!^)([A-Z])", r"_\1", type(self).__name__).lower()

    def plain(self) -> Any:
        """The step as it stands in a recipe, with the options that are not the default."""
        options = {
            leaf.name: getattr(self, leaf.name)
            for leaf in fields(self)
            if getattr(self, leaf.name) != _default(leaf)
        }
        return {self.name: options} if options else self.name

    def problems(self, place: str) -> Iterator[Problem]:
        """What is wrong with the options."""
        yield from ()


def _default(leaf: Field[Any]) -> Any:
    return leaf.default if leaf.default_factory is MISSING else leaf.default_factory()
