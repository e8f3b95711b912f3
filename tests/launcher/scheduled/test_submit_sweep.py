"""A sweep handed in, with sbatch replaced by a script that notes what it was given."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from launcher.commands.job_commands import submit
from launcher.records import jobs
from launcher.scheduled import sweep
from recipes.errors import ClusterError, RecipeError
from recipes.load import load
from recipes.sweep import Member, members

RECIPE = """
base: {source: org/model}
data: {train: rows.jsonl}
train: {steps: 10}
cluster: {kind: slurm}
storage: {path: runs, cache: cache}
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    replace(tmp_path, "sbatch", 'cp "${!#}" handed_in; echo "42;cluster"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replace(workplace: Path, command: str, body: str) -> None:
    file = workplace / "bin" / command
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/bash\n{body}\n")
    file.chmod(0o755)


def of(*sweeps: str) -> list[Member]:
    return members("tiny.yaml", [], sweeps)


def test_every_run_has_its_folder_recipe_and_task(workplace: Path):
    (workplace / "runs" / "tiny_r=8").mkdir(parents=True)
    shown = sweep.dry_run(of("adapter.r=4,8"), 1)
    submitted = sweep.submit(of("adapter.r=4,8"), 1)
    assert [(run.name, job.id) for run, job in submitted] == [
        ("tiny_r=4", "42_0"),
        ("tiny_r=8-2", "42_1"),
    ]
    folder = workplace / "runs" / ".sweeps" / "tiny"
    assert (folder / "job.sh").read_text() == (workplace / "handed_in").read_text() == shown
    for number, (run, job) in enumerate(submitted):
        assert (folder / str(number)).resolve() == run
        assert (run / "logs").is_dir()
        assert jobs.job_of(run) == job
        assert load(run / "recipe.yaml").recipe.adapter.r == (4, 8)[number]
        assert json.loads((run / "events.jsonl").read_text())["event"] == "submitted"
    again = sweep.submit(of("adapter.r=4,8"), None)
    assert [run.name for run, _ in again] == ["tiny_r=4-2", "tiny_r=8-3"]
    assert (workplace / "runs" / ".sweeps" / "tiny-2").is_dir()


def test_what_is_told_to_be_typed_finds_the_runs(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def told(recipe: str, *sweeps: str) -> list[str]:
        submit(recipe, sweep=list(sweeps))
        last = capsys.readouterr().out.splitlines()[-1]
        return re.findall(r"shoal [^;]+", last)

    storage = workplace / "runs"
    assert told("tiny.yaml", "adapter.r=4,8") == ["shoal ps", "shoal logs -f tiny_r=4"]
    assert told("tiny.yaml") == ["shoal logs -f tiny"]
    monkeypatch.chdir("/")
    assert told(f"{workplace}/tiny.yaml", "adapter.r=4,8") == [
        f"shoal ps --storage {storage}",
        f"shoal logs -f {storage}/tiny_r=4-2",
    ]
    assert told(f"{workplace}/tiny.yaml") == [f"shoal logs -f {storage}/tiny-2"]


def test_nothing_stays_of_a_sweep_that_is_not_taken(workplace: Path):
    replace(workplace, "sbatch", "echo 'sbatch: error: Invalid job array' >&2; exit 1")
    with pytest.raises(ClusterError, match="the job is not taken: Invalid job array"):
        sweep.submit(of("adapter.r=4,8"), None)
    assert [file for file in (workplace / "runs").rglob("*") if file.name != ".sweeps"] == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ("data.train=rows.jsonl,no.jsonl", "data.train=no.jsonl:\n  data.train = "),
        ("slurm.time=10,20", "slurm.time would change from run to run"),
        ("cluster.kind=slurm,local", "cluster.kind would be local and slurm"),
        ("cluster.kind=local", "has no jobs to submit"),
    ],
)
def test_what_cannot_be_one_sweep_is_refused_before_anything_is_made(
    workplace: Path, changes: str, told: str
):
    with pytest.raises(RecipeError) as caught:
        sweep.submit(of(changes), None)
    assert told in str(caught.value)
    assert not list((workplace / "runs").rglob("recipe.yaml"))
    assert not (workplace / "handed_in").exists()


def test_a_scheduler_is_asked_once_for_all_runs(workplace: Path):
    runs = [run for run, _ in sweep.submit(of("adapter.r=1,2,4,8"), None)]
    body = 'echo x >> asked; printf "42_0|RUNNING|None|n1\\n42_2|PENDING|JobArrayTaskLimit|\\n"'
    replace(workplace, "squeue", body)
    replace(workplace, "sacct", "echo x >> asked; echo '42_3|CANCELLED by 1000'")
    states = jobs.states_of(runs)
    assert [(state.phase, state.word, state.why, state.nodes) for state in states] == [
        ("running", "RUNNING", "", "n1"),
        ("ended", "", "SLURM has forgotten it", ""),
        ("queued", "PENDING", "JobArrayTaskLimit", ""),
        ("ended", "CANCELLED", "", ""),
    ]
    assert (workplace / "asked").read_text().count("x") == 2
