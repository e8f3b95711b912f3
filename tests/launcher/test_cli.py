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


@pytest.mark.parametrize("arguments", [["--help"], ["check", "quickstart"], ["recipes"], ["init"]])
def test_light_commands_are_light(arguments: list[str], tmp_path: Path):
    """Under half a second of CPU time beyond the interpreter; wall-clock time would be noise."""

    def cpu_s(command: list[str]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare = cpu_s([sys.executable, "-c", "pass"])
    cpu_s([*SHOAL, "--help"])  # the first one writes byte code
    assert cpu_s([*SHOAL, *arguments]) - bare < 0.5


def test_light_commands_import_nothing_heavy(tmp_path: Path):
    program = (
        "import sys; sys.argv[1:] = ['recipes']\n"
        "from launcher.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'ray', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
