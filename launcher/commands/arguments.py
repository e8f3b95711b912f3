"""Arguments that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's file, or the name of a shipped one.")
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]…", help="Values that replace the recipe's."),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's folder, address, or name in ./runs.")
]
