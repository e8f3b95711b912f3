"""The shapes a row can have."""

from __future__ import annotations

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
