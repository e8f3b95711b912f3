"""What a model that classifies is told of its labels, in the words of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MULTI_LABEL = "multi_label_classification"
"""`problem_type` in the configuration of a model whose texts can have several labels."""


def label_options(labels: Sequence[str], *, multi_label: bool) -> dict[str, Any]:
    """Values of a configuration for labels in the order of their ids."""
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
        "num_labels": len(labels),
        "problem_type": MULTI_LABEL if multi_label else "single_label_classification",
    }
