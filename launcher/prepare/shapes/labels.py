"""Labels as rows hold them."""

from __future__ import annotations

import math
import re
from typing import Any

from launcher.prepare.shapes.columns import Columns
from launcher.prepare.unusable import Unusable

_BETWEEN = re.compile(r"[,;|，；、]")


def label_of(columns: Columns) -> str | None:
    """The label of a row as text; None where there is none. Raises `Unusable` for what is none."""
    return _label(columns.get("label"), columns.name_of("label"))


def labels_of(columns: Columns) -> list[str] | None:
    """The labels of a row, sorted, each once: a list of them, or a text in which they stand between
    commas, semicolons or bars. An empty list says that none fits; None that nothing is said."""
    value, name = columns.get("labels"), columns.name_of("labels")
    if isinstance(value, str):
        value = _BETWEEN.split(value) if value.strip() else None
    if value is None:
        return None
    found = [_label(item, name) for item in (value if isinstance(value, list) else [value])]
    return sorted({label for label in found if label is not None})


def _label(value: Any, name: str) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a table with an empty cell makes numbers of its ids
    if not isinstance(value, str | int | float):
        raise Unusable("no label", f"{name} is {type(value).__name__}")
    return str(value).strip() or None
