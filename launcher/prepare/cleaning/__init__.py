"""Cleaning a text, step by step.

`Cleaner` is the seam: built once in a process from the recipe's steps, it takes texts and gives
texts. Each step is a function of its options, made in the module of its kind.
"""

from launcher.prepare.cleaning.cleaner import (
    Cleaner,
    Rewriter,
    before_boilerplate,
    boilerplate_step,
    clean,
    cleaner_of,
)
from launcher.prepare.cleaning.inputs import (
    near_versions,
    step_content,
    step_files,
    step_versions,
)

__all__ = [
    "Cleaner",
    "Rewriter",
    "before_boilerplate",
    "boilerplate_step",
    "clean",
    "cleaner_of",
    "near_versions",
    "step_content",
    "step_files",
    "step_versions",
]
