"""Which samples are trained on, which are held out, and which are set aside, over all units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TRAIN, HELD_OUT = "", "held out"
DUPLICATE = "duplicate"
LEAK = "also held out"
NEAR = "near duplicate"
NEAR_LEAK = "near duplicate of a held-out one"
CONTRADICTION = "contradicting labels"
REASONS = [TRAIN, HELD_OUT, DUPLICATE, LEAK, CONTRADICTION, NEAR, NEAR_LEAK]
"""All verdicts; a number of one is its place here."""

Digests = npt.NDArray[np.void]
"""16 bytes a sample, dtype V16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A verdict for each sample, in order: int8 numbers, read with `verdict`."""

    codes: npt.NDArray[np.int8]

    def verdict(self, index: int) -> str:
        """`TRAIN`, `HELD_OUT`, or the reason to set the sample aside."""
        return reason(int(self.codes[index]))


def code(verdict: str) -> int:
    """The number of a verdict."""
    return REASONS.index(verdict)


def reason(number: int) -> str:
    """The verdict of a number."""
    return REASONS[number]


def select(
    digests: Digests,
    questions: Digests,
    from_held_out: npt.NDArray[np.bool_],
    *,
    held_out_fraction: float,
    deduplicate: bool,
    labels_must_agree: bool,
) -> Selection:
    """Judge all samples in the order of their sources.

    Equal samples: the first one stays. A text with two labels teaches nothing: all of it goes, when
    labels must agree. What is held out is decided by the question alone, so that it does not depend
    on the order, and a training sample with a held-out question is set aside.
    """
    held_out = from_held_out | _chosen(questions, held_out_fraction)
    codes = np.where(held_out, code(HELD_OUT), code(TRAIN)).astype(np.int8)
    codes[~held_out & np.isin(_ordered(questions), _ordered(questions[held_out]))] = code(LEAK)
    if deduplicate:
        for part in (held_out, ~held_out):
            indices = np.flatnonzero(part)
            _, first = np.unique(_ordered(digests[indices]), return_index=True)
            codes[np.delete(indices, first)] = code(DUPLICATE)
    if labels_must_agree:
        codes[_contradicting(digests, questions)] = code(CONTRADICTION)
    return Selection(codes=codes)


def _ordered(digests: Digests) -> npt.NDArray[np.bytes_]:
    """The same 16 bytes as a dtype that numpy can sort."""
    return np.ascontiguousarray(digests).view("S16")


def _chosen(questions: Digests, fraction: float) -> npt.NDArray[np.bool_]:
    if fraction == 0.0:
        return np.zeros(len(questions), np.bool_)
    words = np.ascontiguousarray(questions).view(np.uint64).reshape(-1, 2)[:, 0]
    return words < np.uint64(fraction * 2**64)


def _contradicting(digests: Digests, questions: Digests) -> npt.NDArray[np.bool_]:
    """Samples whose question also comes with another label."""
    _, question_of = np.unique(_ordered(questions), return_inverse=True)
    _, first = np.unique(_ordered(digests), return_index=True)
    labels_per_question = np.bincount(question_of[first], minlength=question_of.max(initial=0) + 1)
    return labels_per_question[question_of] > 1
