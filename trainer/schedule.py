"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from recipes.train import Train


def learning_rate(train: Train, step: int, num_steps: int) -> float:
    """Learning rate of step `step`, counted from 0.

    Rises linearly over `warmup_steps`, then stays, falls linearly, or follows half a cosine
    (arXiv:1608.03983) to zero at `num_steps`.
    """
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    done = (step - train.warmup_steps) / max(1, num_steps - train.warmup_steps)
    factor = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
    }[train.schedule]
    return train.learning_rate * factor
