"""The guard of the five names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from launcher.install import ROOMS, check_install
from recipes.errors import InstallError


def test_this_environment_is_shoals_own(tmp_path: Path):
    check_install(tmp_path)
    check_install(Path(__file__).parent.parent.parent)


@pytest.mark.parametrize("listed", [True, False])
def test_another_owner_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool):
    info = tmp_path / "coqui_trainer-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: coqui-trainer\nVersion: 0.3\n")
    (info / "RECORD").write_text("trainer/__init__.py,,\ncoqui_trainer-0.3.dist-info/RECORD,,\n")
    if listed:
        (info / "top_level.txt").write_text("trainer\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(InstallError, match=r"'trainer' is also installed by coqui-trainer 0.3"):
        check_install(tmp_path)


@pytest.mark.parametrize("room", ROOMS)
def test_a_folder_that_would_hide_a_room(tmp_path: Path, room: str):
    (tmp_path / room).mkdir()
    check_install(tmp_path)  # without modules it hides nothing
    (tmp_path / room / "__init__.py").write_text("")
    with pytest.raises(InstallError, match=f"would be imported .*'{room}'"):
        check_install(tmp_path)


def test_a_module_that_would_hide_a_room(tmp_path: Path):
    (tmp_path / "trainer.py").write_text("")
    with pytest.raises(InstallError, match=r"trainer.py would be imported"):
        check_install(tmp_path)
