"""The command line as a person meets it: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHOAL = [str(Path(sys.executable).parent / "shoal")]


def shoal(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SHOAL, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def test_recipes_check_and_init(tmp_path: Path):
    listed = shoal("recipes", cwd=tmp_path)
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["quickstart", "reviews_zh"]
    checked = shoal("check", "quickstart", "train.steps=7", cwd=tmp_path)
    assert checked.returncode == 0
    assert "no problems" in checked.stdout
    assert "7 steps of 8 sequences, 2 workers, ZeRO 0" in checked.stdout
    assert shoal("init", "mine.yaml", cwd=tmp_path).returncode == 0
    mine = shoal("check", "mine.yaml", cwd=tmp_path)
    assert mine.returncode == 0
    assert "1 epoch of 8 sequences, 1 worker, ZeRO 0" in mine.stdout
    again = shoal("init", "mine.yaml", cwd=tmp_path)
    assert again.returncode == 2
    assert "--force overwrites it" in again.stderr
    assert shoal("--version", cwd=tmp_path).stdout.startswith("shoal 0.")


def test_runs_at_an_address_are_not_said_to_be_none(tmp_path: Path):
    told = shoal("ps", "--storage", "s3://bucket/runs/", cwd=tmp_path)
    assert told.returncode == 2
    assert "Name one by its address: shoal status s3://bucket/runs/RUN" in told.stderr


def test_a_wrong_recipe_is_told_in_full_and_nothing_is_written(tmp_path: Path):
    for command in ("check", "run"):
        found = shoal(command, "quickstart", "train.stps=3", "zero.stage=9", cwd=tmp_path)
        assert found.returncode == 2
        assert "2 problems" in found.stderr
        assert "train.stps: is no key of train. Did you mean 'steps'?" in found.stderr
        assert "Traceback" not in found.stderr
        assert list(tmp_path.iterdir()) == []


def test_debug_shows_where_an_error_came_from(tmp_path: Path):
    found = shoal("--debug", "check", "nowhere.yaml", cwd=tmp_path)
    assert found.returncode == 2
    assert "Traceback" in found.stderr
    assert "nowhere.yaml: there is no such file" in found.stderr


def test_a_folder_that_hides_a_room_is_refused(tmp_path: Path):
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "__init__.py").write_text("")
    found = shoal("check", "quickstart", cwd=tmp_path)
    assert found.returncode == 1
    assert "would be imported by Ray's workers" in found.stderr


@pytest.fixture(scope="module")
def byte_code() -> None:
    subprocess.run([*SHOAL, "--help"], capture_output=True, check=True)


# How many functions are called, most of them to import modules, and a third more: as many on any
# machine, busy or not. A million take some 0.6 s of a processor.
LIGHT = [
    (600_000, ["--help"]),
    (950_000, ["check", "quickstart"]),
    (1_350_000, ["recipes"]),
    (500_000, ["init", "--force"]),
    (600_000, ["ps"]),
    (1_000_000, ["adapters"]),
    (1_000_000, ["cache"]),
    (1_400_000, ["plan", "quickstart"]),
    (1_200_000, ["submit", "--dry-run", "quickstart", "cluster.kind=slurm"]),
]


@pytest.mark.parametrize(("limit", "arguments"), LIGHT, ids=[command[0] for _, command in LIGHT])
@pytest.mark.usefixtures("byte_code")
def test_light_commands_are_light(limit: int, arguments: list[str], tmp_path: Path):
    program = (
        "import cProfile, pstats, sys\n"
        f"sys.argv[1:] = {arguments}\n"
        "profile = cProfile.Profile()\n"
        "profile.enable()\n"
        "from launcher.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "profile.disable()\n"
        "assert not {'torch', 'ray', 'transformers', 'deepspeed', 'peft'} & set(sys.modules)\n"
        "print(pstats.Stats(profile).total_calls)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "SHOAL_CACHE": str(tmp_path / "cache")},  # a full one takes more calls
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(run.stdout.split()[-1]) < limit
