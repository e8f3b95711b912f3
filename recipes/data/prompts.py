"""Texts with `{column}` variables: data.prompt and data.answer."""

from __future__ import annotations

from collections.abc import Callable
from string import Formatter


def variables(template: str) -> list[str]:
    """The columns that a text names, each once, in order. Raises `ValueError` when it is not
    well-formed; braces that are meant as such are written twice."""
    names: list[str] = []
    for _, name, spec, conversion in Formatter().parse(template):
        if name is None:
            continue
        if spec or conversion or not name.strip() or "[" in name:
            written = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise ValueError(f"{{{written}}} is no name of a column; braces are written twice")
        if name not in names:
            names.append(name)
    return names


def fill(template: str, value_of: Callable[[str], str]) -> str:
    """A well-formed text with its variables replaced by what `value_of` gives for each."""
    return "".join(
        literal + (value_of(name) if name is not None else "")
        for literal, name, _, _ in Formatter().parse(template)
    )
