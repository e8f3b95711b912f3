"""What the driver of preparing holds, clears away and tells; without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.access import Access
from launcher.prepare.failures import UselessRowsError
from launcher.prepare.intact import remove_unfinished
from launcher.prepare.manifest import check_usable
from launcher.prepare.stages import sequence
from launcher.prepare.stages.context import Context
from launcher.prepare.stages.rows import PROMPTS_KEPT
from recipes.base import Base
from recipes.data import Data, Source
from recipes.recipe import Recipe
from recipes.train import Train

RECIPE = Recipe(
    name="r", base=Base(source="b"), data=Data(train=[Source(path="a.jsonl")]), train=Train(steps=1)
)


def test_no_more_prompts_are_held_than_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each unit reports as many; of 20,000 units they would be gigabytes."""

    def run(*_: Any, look: Any, rows: Any) -> list[dict[str, Any]]:
        reports = [{"unit": unit, "prompts": [unit] * 10} for unit in range(5)]
        for report in reports:
            look(report)
        return reports

    monkeypatch.setattr(sequence.Stages, "_run", run)
    context = Context(recipe=RECIPE, work=tmp_path)
    stages = sequence.Stages(RECIPE, context, lambda *_, **__: None, Access(), 2**20)
    held = [prompt for report in stages.tokenize([], [], [], []) for prompt in report["prompts"]]
    assert held == [0] * 10 + [1] * (PROMPTS_KEPT - 10)


def test_a_file_that_cannot_be_removed_yet_stops_nothing(tmp_path: Path):
    """As on NFS what a worker still maps; here a folder, which cannot be removed so either."""
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / ".shard.arrow.1").write_text("begun")
    (tmp_path / "train" / "shard.arrow").write_text("whole")
    (tmp_path / "train" / ".nfs0000").mkdir()
    remove_unfinished(tmp_path)
    assert {file.name for file in (tmp_path / "train").iterdir()} == {"shard.arrow", ".nfs0000"}


def test_what_cannot_be_used_is_told_in_a_line_however_many_files_there_are():
    split = {"rows": 0}
    manifest = {
        "rows_read": 9,
        "rejected": {"no known column": 9},
        "examples": {},
        "splits": {"train": split, "held_out": split},
        "sources": [{"path": f"/data/part_{number}.jsonl"} for number in range(20_000)],
    }
    with pytest.raises(UselessRowsError, match=r"part_7\.jsonl and 19,992 more\. ") as error:
        check_usable(RECIPE, manifest)
    assert len(str(error.value)) < 500
