"""What is measured on the held-out rows, before and after training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    before: bool = True
    """Measure the untrained adapter first."""

    after: bool = True
    """Measure the trained adapter."""

    every_steps: int | None = None
    """Measure, and save, after this many steps as well."""

    batch_size: int = 8
    """Sequences one worker evaluates at a time."""

    choices: list[str] = field(default_factory=list)
    """Answers a chat may end with; accuracy and F1 count how often the likeliest is right."""

    generate: int = 1
    """Held-out prompts the model answers before and after; causal models only."""

    max_new_tokens: int = 32
    """Longest generated answer (tokens)."""

    def problems(self) -> Iterator[Problem]:
        leasts = (("batch_size", 1), ("generate", 0), ("max_new_tokens", 1), ("every_steps", 1))
        for name, least in leasts:
            value = getattr(self, name)
            if value is not None and value < least:
                yield Problem(
                    path=f"evaluate.{name}",
                    value=value,
                    message="is too small",
                    allowed=f"≥ {least}",
                )
        if len(self.choices) == 1 or len(set(self.choices)) != len(self.choices):
            yield Problem(
                path="evaluate.choices",
                value=list(self.choices),
                message="leaves nothing to choose",
                allowed="none, or two and more that differ",
            )
