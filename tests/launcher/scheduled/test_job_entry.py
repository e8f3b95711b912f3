"""What a job of Ray's Jobs API makes of its ticket."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from cluster.ray_jobs.ticket import Ticket
from launcher.records import runs
from launcher.scheduled.job_entry import work_as_job
from recipes import resolved
from recipes.errors import ClusterError, InstallError, RecipeError, StorageError
from recipes.load import load


@pytest.fixture
def ticket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ticket:
    """Of a run in this test's environment."""
    loaded = load(
        "quickstart", ["cluster.kind=ray_job", f"storage.path={tmp_path / 'runs'}", "name=own"]
    )
    ticket = Ticket(
        run="own-2", key="abc", version=version("shoal"), parent="", recipe=resolved.to_yaml(loaded)
    )
    for name, value in ticket.to_environment().items():
        monkeypatch.setenv(name, value)
    return ticket


def test_a_run_that_is_not_here_gets_its_folder(ticket: Ticket, tmp_path: Path):
    driven: list[Path] = []
    work_as_job(driven.append)
    assert driven == [tmp_path / "runs" / "own-2"]
    assert load(driven[0] / "recipe.yaml").recipe.name == "own"
    work_as_job(driven.append)  # as after KubeRay's retry
    assert driven[1] == driven[0]


def test_a_run_of_another_submitter_is_left_alone(ticket: Ticket, tmp_path: Path):
    folder = tmp_path / "runs" / "own-2"
    folder.mkdir(parents=True)
    with pytest.raises(StorageError, match="is the folder of another run"):
        work_as_job(lambda run_dir: pytest.fail("driven"))
    assert not (folder / "recipe.yaml").exists()


def test_why_a_run_did_not_begin_is_in_its_events(ticket: Ticket, tmp_path: Path):
    def fail(run_dir: Path) -> None:
        raise ClusterError("no nodes")

    with pytest.raises(ClusterError):
        work_as_job(fail)
    [line] = (tmp_path / "runs" / "own-2" / "events.jsonl").read_text().splitlines()
    assert (json.loads(line)["event"], json.loads(line)["error"]) == ("not_formed", "no nodes")


def test_another_version_is_refused(
    ticket: Ticket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SHOAL_VERSION", "0.0.1")
    with pytest.raises(InstallError, match=r"and 0\.0\.1 has submitted"):
        work_as_job(lambda run_dir: pytest.fail("driven"))
    assert not (tmp_path / "runs").exists()


def test_code_that_came_along_has_the_version_of_who_sent_it(
    ticket: Ticket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sent = ticket.recipe.replace("code: null", f"code: {json.dumps(str(tmp_path))}")
    assert sent != ticket.recipe
    monkeypatch.setenv("SHOAL_RECIPE", sent)
    monkeypatch.setenv("SHOAL_VERSION", "0.0.1")
    driven: list[Path] = []
    work_as_job(driven.append)
    assert len(driven) == 1


def test_a_fork_knows_its_parent(ticket: Ticket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHOAL_PARENT", "/shared/runs/own")
    driven: list[Path] = []
    work_as_job(driven.append)
    assert runs.parent_of(driven[0]) == "/shared/runs/own"


def test_outside_of_a_job_there_is_no_ticket():
    with pytest.raises(RecipeError, match="this is no job of `shoal submit`"):
        work_as_job(lambda run_dir: pytest.fail("driven"))
