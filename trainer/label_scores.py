"""How well labels were predicted. scikit-learn is imported when it is needed: 1 s that the first
step of a run need not wait for. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

LABEL_SCORES = ("accuracy", "f1")
"""What is told of one label for each text, or of one of several choices."""

LABEL_SET_SCORES = ("exact_match", "f1", "f1_micro")
"""What is told of texts that can have several labels."""


def label_scores(right: Sequence[Hashable], predicted: Sequence[Hashable]) -> dict[str, float]:
    """Accuracy and macro F1 of one label for each text."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(right, predicted)),
        "f1": float(f1_score(right, predicted, average="macro", zero_division=0.0)),
    }


def label_set_scores(
    right: Sequence[Collection[Hashable]], predicted: Sequence[Collection[Hashable]]
) -> dict[str, float]:
    """Of texts that can have several labels: the share of those that got exactly theirs, macro F1
    over the labels that any text has or got, and micro F1 over all pairs of text and label."""
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.preprocessing import MultiLabelBinarizer

    binarizer = MultiLabelBinarizer().fit([*right, *predicted])
    if not len(binarizer.classes_):  # nobody has any
        return {"exact_match": 1.0, "f1": 0.0, "f1_micro": 0.0}
    truth, guess = binarizer.transform(right), binarizer.transform(predicted)
    return {
        "exact_match": float(accuracy_score(truth, guess)),
        "f1": float(f1_score(truth, guess, average="macro", zero_division=0.0)),
        "f1_micro": float(f1_score(truth, guess, average="micro", zero_division=0.0)),
    }
