"""Runs with every optimizer, under each ZeRO stage that it may have."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from recipes.recipe import Recipe
from recipes.zero import Zero
from support import jobs

STAGES = (0, 1, 2, 3)

TRAINED: dict[str, dict[str, Any]] = {
    "adamw": {},
    "loraplus": {"loraplus_ratio": 8.0, "learning_rate": 2e-3},
    "adamw_8bit": {"optimizer": "adamw_8bit"},
    "adafactor": {"optimizer": "adafactor"},
    "muon": {"optimizer": "muon"},
}

Case = tuple[str, int, bool]
"""Key of TRAINED, stage, and whether the optimizer's state lies in host memory."""

CASES: list[Case] = [
    ("adamw", 0, False),
    *(("loraplus", stage, False) for stage in STAGES),
    *(("adamw_8bit", stage, False) for stage in STAGES),
    ("adafactor", 0, False),
    ("muon", 0, False),
    *(("loraplus", stage, True) for stage in (1, 2, 3)),
]


def recipe(case: Case) -> Recipe:
    """Six steps; with DoRA where an optimizer treats vectors otherwise than matrices."""
    trained, stage, offload = case
    plain = jobs.recipe()
    return dataclasses.replace(
        plain,
        adapter=dataclasses.replace(plain.adapter, dora=trained in ("adafactor", "muon")),
        train=dataclasses.replace(plain.train, **TRAINED[trained]),
        zero=Zero(stage=stage, offload_optimizer=offload),
    )


def train(folders: Path, cases: list[Case]) -> dict[Case, dict]:
    """Whole runs, which save at steps 3 and 6."""
    return {case: jobs.train(folders, _name("whole", case), recipe(case)) for case in cases}


def resume(
    folders: Path, label: str, pairs: list[tuple[Case, Case]], from_runs: dict[Case, dict]
) -> dict[tuple[Case, Case], dict]:
    """For each (old case, new case), the last three steps of the old run as the new one."""
    return {
        (old, new): jobs.train(
            folders, _name(label, old, new), recipe(new), resume_from=step_3(from_runs[old])
        )
        for old, new in pairs
    }


def step_3(run: dict[str, Any]) -> Path:
    """The checkpoint in the middle of a run."""
    return Path(run["checkpoint"]).parent / "step_000003"


def _name(label: str, *cases: Case) -> str:
    return "-".join(["optimizers", label, *(str(part) for case in cases for part in case)])
