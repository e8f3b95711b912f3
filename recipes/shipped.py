"""The recipes that come with shoal, and finding a recipe by name or file."""

from __future__ import annotations

from pathlib import Path

from recipes.errors import RecipeError
from recipes.problem import did_you_mean

_FOLDER = Path(__file__).parent
_STARTER = "starter"


def names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml") if file.stem != _STARTER)


def file_of(name: str) -> Path:
    """The file of a shipped recipe."""
    return _FOLDER / f"{name}.yaml"


def starter() -> str:
    """The commented recipe that `shoal init` writes."""
    return file_of(_STARTER).read_text(encoding="utf-8")


def find(reference: str | Path) -> Path:
    """The file of a recipe given as a path or as the name of a shipped one, absolute.

    Raises `RecipeError` when there is neither, with the nearest name.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        return path.resolve()
    if str(reference) in names():
        return file_of(str(reference))
    if path.is_dir() and (path / "recipe.yaml").is_file():
        return (path / "recipe.yaml").resolve()
    hint = did_you_mean(path.stem, names()) or f"Shipped recipes: {', '.join(names())}."
    raise RecipeError(f"{reference}: there is no such file, nor a shipped recipe. {hint}")
