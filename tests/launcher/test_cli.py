"""The command line as a person meets it: in a process of its own."""

from __future__ import annotations

import resource
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
    assert shoal("check", "mine.yaml", cwd=tmp_path).returncode == 0
    again = shoal("init", "mine.yaml", cwd=tmp_path)
    assert again.returncode == 2
    assert "--force overwrites it" in again.stderr
    assert shoal("--version", cwd=tmp_path).stdout.startswith("shoal 0.")


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


def cpu_s(command: list[str], cwd: Path) -> float:
    """The least of three: other work on the machine only ever adds to it."""
    found = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=cwd, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


@pytest.fixture(scope="module")
def byte_code() -> None:
    subprocess.run([*SHOAL, "--help"], capture_output=True, check=True)


LIGHT = [
    (0.5, ["--help"]),
    (0.5, ["check", "quickstart"]),
    (0.5, ["recipes"]),
    (0.5, ["init", "--force"]),
    (1.0, ["ps"]),
    (1.0, ["adapters"]),
    (1.0, ["cache"]),
    (1.0, ["plan", "quickstart"]),
    (1.0, ["submit", "--dry-run", "quickstart", "cluster.kind=slurm"]),
]


@pytest.mark.parametrize(("limit_s", "arguments"), LIGHT, ids=[command[0] for _, command in LIGHT])
@pytest.mark.usefixtures("byte_code")
def test_light_commands_are_light(limit_s: float, arguments: list[str], tmp_path: Path):
    """In CPU time; wall-clock time would be noise.

    Importing what every command needs takes 0.145 s on the machine that the limits are given for. A
    busy machine slows every process, by half and more, but not at every moment: the two are
    measured in turn.
    """
    libraries = [sys.executable, "-c", "import omegaconf, pydantic, typer"]
    pairs = [(cpu_s([*SHOAL, *arguments], tmp_path), cpu_s(libraries, tmp_path)) for _ in range(2)]
    assert min(command / needed for command, needed in pairs) < limit_s / 0.145


@pytest.mark.parametrize(
    "arguments", [command for _, command in LIGHT], ids=[command[0] for _, command in LIGHT]
)
def test_light_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path):
    program = (
        f"import sys; sys.argv[1:] = {arguments}\n"
        "from launcher.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'ray', 'transformers', 'deepspeed', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
