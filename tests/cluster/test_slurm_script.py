"""The batch script: its exact text, and that bash and SLURM's rules of quoting agree with it."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from cluster.slurm.script import cpus_per_node, script
from recipes.base import Base
from recipes.cluster import Cluster
from recipes.data import Data
from recipes.recipe import Recipe
from recipes.slurm import Slurm

RUN = Path("/shared/my runs/tiny")
RECIPE = Recipe(
    name="tiny",
    base=Base(source="/base"),
    data=Data(train=["/data.jsonl"]),
    cluster=Cluster(kind="slurm", workers=[4], cpus_per_worker=2),
    slurm=Slurm(
        nodes=2,
        partition="gpu",
        constraint="a100&ib",
        gpus_per_node=2,
        time="12:00:00",
        memory="200G",
        setup=["module load cuda"],
        extra=["--mail-type=END"],
        exclude=["n7", "n8"],
        max_requeues=3,
    ),
)

EXPECTED = """\
#!/bin/bash
# The job of a run of shoal, written by `shoal submit`.
#SBATCH --job-name=tiny
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=200G
#SBATCH --gpus-per-node=2
#SBATCH --partition=gpu
#SBATCH --constraint="a100&ib"
#SBATCH --time=12:00:00
#SBATCH --exclude=n7,n8
#SBATCH --output="/shared/my runs/tiny/logs/slurm.log"
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --mail-type=END

run='/shared/my runs/tiny'
rm -f "$run/.stop"
"""


def of(**changes: object) -> str:
    slurm = dataclasses.replace(RECIPE.slurm, **changes)  # type: ignore[arg-type]
    return script(dataclasses.replace(RECIPE, slurm=slurm), RUN, shoal="/venv/bin/shoal")


def test_the_head_of_the_script():
    text = of()
    assert text.startswith(EXPECTED)
    assert "\nmodule load cuda\n" in text
    assert text.index("trap ") < text.index("module load") < text.index("srun ")
    assert "\nsrun --export=ALL --kill-on-bad-exit=0 --cpus-per-task=4 /venv/bin/shoal node" in text


def test_a_container_and_a_command_of_its_own():
    text = of(container_image="img:1", container_mounts=["/a:/a", "/b:/b"], shoal="shoal")
    assert (
        " --container-image=img:1 --container-mounts=/a:/a,/b:/b shoal node "
        '"$run" &' in text.replace("\n", " ")
    )


def test_a_run_that_can_do_with_fewer_workers_outlives_a_node():
    elastic = dataclasses.replace(RECIPE.cluster, workers=[1, 4])
    text = script(dataclasses.replace(RECIPE, cluster=elastic), RUN, shoal="shoal")
    assert "\n#SBATCH --no-kill\n" in text
    assert "\nsrun --export=ALL --no-kill " in text
    assert "--no-kill" not in of()


def test_no_requeue():
    assert "#SBATCH --no-requeue\n" in of(max_requeues=0)


def test_a_percent_sign_in_a_path_is_no_pattern():
    text = script(RECIPE, Path("/runs/50%j"), shoal="shoal")
    assert "#SBATCH --output=/runs/50%%j/logs/slurm.log\n" in text


@pytest.mark.parametrize(
    ("workers", "told", "expected"), [([4], None, 4), ([1, 5], None, 6), ([4], 16, 16)]
)
def test_cpus(workers: list[int], told: int | None, expected: int):
    recipe = dataclasses.replace(
        RECIPE,
        cluster=dataclasses.replace(RECIPE.cluster, workers=workers),
        slurm=dataclasses.replace(RECIPE.slurm, cpus_per_node=told),
    )
    assert cpus_per_node(recipe) == expected


@pytest.mark.parametrize(
    ("status", "restarts", "asked", "left"),
    [
        ("0", "0", [], 0),
        ("1", "0", [], 1),
        ("75", "2", ["scontrol requeue 7"], 75),
        ("75", "3", [], 75),
        ("130", "0", ["scancel 7"], 130),
        (None, "0", [], 1),
    ],
)
def test_the_end_of_the_script(
    tmp_path: Path, status: str | None, restarts: str, asked: list[str], left: int
):
    """Run by bash, with SLURM's commands replaced by ones that note what they were asked."""
    programs, run = tmp_path / "bin", tmp_path / "my run"
    programs.mkdir()
    run.mkdir()
    write = f"echo {status} > '{run}/.status'; exit 9" if status else "exit 9"
    bodies = {
        "srun": write,
        "scontrol": f'case $1 in show) echo n1;; *) echo scontrol "$@" >> {tmp_path}/asked;; esac',
        "scancel": f'echo scancel "$@" >> {tmp_path}/asked',
        "sleep": "true",
    }
    for name, body in bodies.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    recipe = dataclasses.replace(RECIPE, slurm=dataclasses.replace(RECIPE.slurm, setup=[]))
    file = tmp_path / "job.sh"
    file.write_text(script(recipe, run, shoal="shoal"))
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_RESTART_COUNT": restarts,
    }
    ended = subprocess.run(["bash", str(file)], env=environment, capture_output=True, text=True)
    assert ended.returncode == left, ended.stderr
    told = tmp_path / "asked"
    assert (told.read_text().splitlines() if told.exists() else []) == asked
