"""What the doctor finds, and who is the odd one among several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it should be."""

    node: str | None
    """The node's name; None when it is the place, or the recipe, and no node in particular."""
    what: str
    remedy: str
    severity: Severity
    """An error ends a run, now or later; a warning slows it, or may end it."""
    leave_out: bool = False
    """Whether a run without this node would be spared it."""


def error(node: str | None, what: str, remedy: str) -> Finding:
    """An error of a node is a reason to leave it out."""
    return Finding(
        node=node, what=what, remedy=remedy, severity="error", leave_out=node is not None
    )


def warning(node: str | None, what: str, remedy: str) -> Finding:
    return Finding(node=node, what=what, remedy=remedy, severity="warning")


def to_leave_out(findings: Collection[Finding], nodes: Collection[str]) -> list[str]:
    """The nodes to do without, sorted; none when that would be all: then it is not the nodes."""
    bad = {finding.node for finding in findings if finding.leave_out and finding.node is not None}
    return sorted(bad) if set(nodes) - bad else []


def majority(values: Mapping[str, str]) -> str | None:
    """The value that more than half of the nodes have, or None. `values` by node."""
    value, count = Counter(values.values()).most_common(1)[0]
    return value if 2 * count > len(values) else None
