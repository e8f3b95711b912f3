"""What the tasks of all stages are told, and where they leave what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recipes.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """`work` is a folder that all nodes see, within the folder that will be the prepared data."""

    recipe: Recipe
    work: Path

    @property
    def tokenizer(self) -> Path:
        """The folder in which the driver leaves the base's tokenizer."""
        return self.work / "tokenizer"

    @property
    def root(self) -> Path:
        """The folder that will be the prepared data."""
        return self.work.parent

    def file(self, stage: str, number: int, suffix: str) -> Path:
        """A file of a task that later stages read; its folder is made."""
        folder = self.work / stage
        folder.mkdir(exist_ok=True)
        return folder / f"{number:05d}{suffix}"

    def named(self, *files: Path) -> list[str]:
        """Files as a report names them."""
        return [str(file.relative_to(self.root)) for file in files]
