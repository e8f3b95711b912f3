"""Rows that fail to be read: counted, and too many of them stop preparing early."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from launcher.prepare.examples import line_of
from launcher.prepare.stages.stage import Report
from launcher.prepare.unusable import remedy
from recipes.errors import DataError

# Fewer rows than this may fail at the beginning of a file without telling much of the rest.
_ROWS_THAT_TELL = 10_000
_REASONS_SHOWN = 3
_REMEDY = "Mend the files, name their columns in data.columns"


class UselessRowsError(DataError):
    """What all rows together are: the same files would always end so."""


@dataclass(slots=True)
class Failures:
    """What failed so far, of how many rows, `most` of which (a share) may."""

    most: float
    rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Mapping[str, Any], most: float) -> Failures:
        """What failed when data was prepared, perhaps with another share allowed."""
        examples = {
            reason: [line_of(example) for example in told]
            for reason, told in manifest.get("examples", {}).items()
        }
        return cls(most, manifest["rows_read"], Counter(manifest["failed"]), examples)

    def add(self, report: Report) -> None:
        """Count what came of a unit. Raises `UselessRowsError` when it is clearly too much."""
        self.rows += report["rows"]
        self.reasons.update(report["failed"])
        for reason, examples in report["examples"].items():
            known = self.examples.setdefault(reason, [])
            known += examples[: _REASONS_SHOWN - len(known)]
        if self.rows >= _ROWS_THAT_TELL:
            self.check()

    def check(self) -> None:
        """Raises `UselessRowsError` with the commonest reasons when more failed than may."""
        failed = self.reasons.total()
        # All of them is another error: nothing is left to train on.
        if failed <= self.most * self.rows or failed == self.rows:
            return
        lines = [
            f"data.max_failed = {self.most:g}: {failed:,} of {self.rows:,} rows cannot be used "
            f"({failed / self.rows:.1%}). The commonest reasons:"
        ]
        for reason, count in self.reasons.most_common(_REASONS_SHOWN):
            lines.append(f"  {count:,} {reason}")
            lines += [f"    {example}" for example in self.examples.get(reason, [])]
        [(commonest, _)] = self.reasons.most_common(1)
        lines.append(f"{remedy(commonest, _REMEDY)}, or raise the share")
        raise UselessRowsError("\n".join(lines))
