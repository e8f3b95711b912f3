"""What opens the storage that a run uses, taken along to other nodes and shown nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from recipes import environment
from recipes.address import is_address
from recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Access:
    """The variables that the processes of a run are given: those that its recipe names, and what
    opens its object storage. Not in Ray's runtime environment, which Ray writes down and shows; for
    the same reason it shows nothing of itself."""

    variables: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, recipe: Recipe, addresses: Iterable[str | None]) -> Access:
        """What is needed where any of the addresses is that of an object storage.

        Raises `RecipeError` for a variable that the recipe names and nobody has set.
        """
        named = environment.values(recipe.cluster.env)
        remote = any(address is not None and is_address(address) for address in addresses)
        return cls(named | environment.for_storage() if remote else named)

    def use(self) -> None:
        """Give them to this process."""
        os.environ.update(self.variables)
