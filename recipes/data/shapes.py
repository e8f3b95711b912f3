"""The shapes a row can have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Shape = Literal[
    "auto",
    "text",
    "prompt_completion",
    "alpaca",
    "sharegpt",
    "messages",
    "text_label",
    "text_labels",
    "text_pair",
    "preference",
    "image_text",
]

CHATS: tuple[Shape, ...] = ("alpaca", "sharegpt", "messages")
"""Shapes whose rows say themselves what is asked and answered."""

CLASSIFIED: tuple[Shape, ...] = ("text_pair", "text_labels", "text_label")
"""Shapes that a classification takes."""

COLUMNS = (
    "text",
    "text_pair",
    "label",
    "labels",
    "messages",
    "instruction",
    "input",
    "output",
    "history",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "images",
    "system",
    "tools",
)
"""Names that shoal knows columns by, whatever rows call them."""

PROMPTED = ("answer", "response", "image")
"""Further ones of rows that data.prompt asks, beside those that it names."""

ONLY_PREPARED: Mapping[Shape, str] = {
    "preference": "pairs of a chosen and a rejected answer",
    "image_text": "images",
}
"""Shapes that are checked and prepared but not trained on yet, and what they hold."""
