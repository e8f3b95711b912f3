"""Kinds that change modules of the base: how the modules are named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from recipes.adapter.checks import at_least
from recipes.problem import Problem

REGEX = "re:"
"""Begins a target that is a regular expression of full module names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targeted:
    """Of all kinds that change modules of the base."""

    kind: str

    targets: list[str] = field(default_factory=lambda: ["all-linear"])
    """Modules by name, such as q_proj, or one `re:` pattern; `all-linear` leaves out the head."""

    modules_to_save: list[str] = field(default_factory=list)
    """Modules trained in full and kept with the adapter; a new classification head is always."""

    def problems(self) -> Iterator[Problem]:
        if not self.targets:
            yield Problem(
                path="adapter.targets",
                value=self.targets,
                message="names no module",
                allowed="all-linear, module names, or one pattern that begins with re:",
            )
        for alone in ("all-linear", "all-norms"):
            if alone in self.targets and len(self.targets) > 1:
                yield Problem(
                    path="adapter.targets", value=self.targets, message=f"{alone} stands alone"
                )
        yield from self._pattern_problems()

    def _pattern_problems(self) -> Iterator[Problem]:
        patterns = [target for target in self.targets if target.startswith(REGEX)]
        if patterns and len(self.targets) > 1:
            yield Problem(
                path="adapter.targets", value=self.targets, message="a pattern stands alone"
            )
        for pattern in patterns:
            try:
                re.compile(pattern.removeprefix(REGEX))
            except re.error as error:
                yield Problem(
                    path="adapter.targets",
                    value=pattern,
                    message=f"is no regular expression: {error}",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layered(Targeted):
    """Of kinds that can be kept to some layers."""

    last_layers: int | None = None
    """Adapt only this many layers, counted from the output; all when left out."""

    def problems(self) -> Iterator[Problem]:
        yield from Targeted.problems(self)
        yield from at_least(1, {"last_layers": self.last_layers}, "adapts nothing")
        if self.last_layers is not None and self.targets[:1] and self.targets[0].startswith(REGEX):
            yield Problem(
                path="adapter.last_layers",
                value=self.last_layers,
                message="a pattern names layers by itself",
                hint="Put the layers' numbers into adapter.targets",
            )
