"""What the nodes of a run get from outside: the base, once; variables of the shell, by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.workplace import SHOAL, make_workplace

from support.commands import Here
from support.hub import Hub, hub_of

SECRETS = {
    "HF_TOKEN": "hf_secretOfATest",
    "AWS_SECRET_ACCESS_KEY": "aws-secret-of-a-test",
    "NAMED_PASSWORD": "named-secret-of-a-test",
    "RAY_AUTH_TOKEN": "token-of-a-test" * 3,
}
ARGUMENTS = ["base.source=org/tiny", "cluster.env=[NAMED_PASSWORD]", "train.steps=4"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("nodes"))


@pytest.fixture(scope="module")
def hub(workplace: Path) -> Iterator[Hub]:
    with hub_of(workplace / "llama") as served:
        yield served


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    """Short: sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="shoal-ray-"))
    yield folder
    shutil.rmtree(folder)


def shoal(
    workplace: Path, hub: Hub, ray_folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("HF_")},
        **SECRETS,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(workplace / "home of hf"),
        "HF_HUB_OFFLINE": "0",
        "RAY_TMPDIR": str(ray_folder),
    }
    done = subprocess.run(
        [SHOAL, "run", "tiny.yaml", *ARGUMENTS, *arguments],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def first(workplace: Path, hub: Hub, ray_folder: Path) -> subprocess.CompletedProcess[str]:
    return shoal(workplace, hub, ray_folder, f"base.copy_to={workplace}/disk")


def copies(run: Path) -> int:
    logs = [file.read_text() for file in (run / "logs").glob("rank_*.log")]
    assert len(logs) == 2
    return sum(text.count("Copied the base to") for text in logs)


def test_a_base_is_downloaded_and_copied_once(
    workplace: Path, hub: Hub, ray_folder: Path, first: subprocess.CompletedProcess[str]
):
    assert hub.downloads["model.safetensors"] == 1
    assert hub.tokens == {f"Bearer {SECRETS['HF_TOKEN']}"}
    assert list((workplace / "cache" / "hub").rglob("model.safetensors"))
    assert copies(workplace / "runs" / "tiny") == 1
    (copy,) = (workplace / "disk").glob("shoal-base-*/")
    used = copy / "model.safetensors"
    assert used.read_bytes() == (workplace / "llama" / "model.safetensors").read_bytes()
    shoal(workplace, hub, ray_folder, f"base.copy_to={workplace}/disk", "name=again")
    assert copies(workplace / "runs" / "again") == 0
    assert max(hub.downloads.values()) == 1


def test_no_secret_is_written(
    workplace: Path, ray_folder: Path, first: subprocess.CompletedProcess[str]
):
    """Not into the run, nor into what is prepared or downloaded, nor into Ray's own logs."""
    files = [
        file
        for folder in (workplace, ray_folder)
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink()
    ]
    names = {file.name for file in files}
    assert {"recipe.yaml", "plan.json", "events.jsonl", "rank_001.log", "raylet.out"} <= names
    told = {file: file.read_bytes() for file in files}
    told |= {Path("shown"): (first.stdout + first.stderr).encode()}
    leaks = [
        (file, name)
        for file, text in told.items()
        for name, secret in SECRETS.items()
        if secret.encode() in text
    ]
    assert leaks == []
    assert "NAMED_PASSWORD" in (workplace / "runs" / "tiny" / "recipe.yaml").read_text()


def test_ranks_are_given_what_is_named(
    workplace: Path, here: Here, monkeypatch: pytest.MonkeyPatch
):
    """transformers tells in the ranks' logs what it loads, if that variable says so; Ray was
    started without it."""
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    told = {}
    for name, names in (("given", "[TRANSFORMERS_VERBOSITY]"), ("not_given", "[]")):
        done = here("run", "tiny.yaml", "train.steps=1", f"name={name}", f"cluster.env={names}")
        assert done.returncode == 0, done.stderr
        log = workplace / "runs" / name / "logs" / "rank_001.log"
        told[name] = "loading configuration file" in log.read_text()
    assert told == {"given": True, "not_given": False}
