"""This machine alone, without Ray and without a recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from launcher.doctor.facts import collect
from launcher.doctor.node_checks import OPEN_FILES, check_nodes
from launcher.doctor.report import Report
from recipes.storage import default_cache


def examine_here() -> Report:
    facts = collect({"storage.cache": Path(default_cache())})
    hard = facts.open_files_hard
    # Ray raises the limit by itself, as far as it may.
    raised = OPEN_FILES if hard < 0 else min(hard, OPEN_FILES)
    facts = dataclasses.replace(facts, open_files=max(facts.open_files, raised))
    return Report(nodes=(facts,), links=(), findings=tuple(check_nodes([facts], store_bytes=0)))
