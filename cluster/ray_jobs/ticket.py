"""What a job needs to know of its run, as environment variables of the job."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

_RUN, _KEY, _VERSION = "SHOAL_RUN", "SHOAL_KEY", "SHOAL_VERSION"
_PARENT, _RECIPE = "SHOAL_PARENT", "SHOAL_RECIPE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    run: str
    """The run's name below `storage.path`."""
    key: str
    """Tells the run from another one of its name: the submitter need not see the storage."""
    version: str
    """Of the shoal that submitted."""
    parent: str
    """Address or folder of the run from whose checkpoint it begins; empty when it does not."""
    recipe: str
    """The resolved recipe (YAML)."""

    def to_environment(self) -> dict[str, str]:
        return {
            _RUN: self.run,
            _KEY: self.key,
            _VERSION: self.version,
            _PARENT: self.parent,
            _RECIPE: self.recipe,
        }

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Raises `KeyError` outside of such a job."""
        return cls(
            run=environment[_RUN],
            key=environment[_KEY],
            version=environment[_VERSION],
            parent=environment[_PARENT],
            recipe=environment[_RECIPE],
        )


def has_ticket(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process belongs to a job that was submitted with a ticket."""
    return _RUN in environment and _RECIPE in environment
