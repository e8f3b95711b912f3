"""The batch script: its exact text, and that bash and SLURM's rules of quoting agree with it."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from cluster.job import Submission, Sweep
from cluster.slurm.script import cpus_per_node, doctor_script, script, sweep_script
from recipes.base import Base
from recipes.cluster import Cluster
from recipes.data import Data, Source
from recipes.recipe import Recipe
from recipes.slurm import Slurm

RUN = Path("/shared/my runs/tiny")
RECIPE = Recipe(
    name="tiny",
    base=Base(source="/base"),
    data=Data(train=[Source(path="/data.jsonl")]),
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
job="$SLURM_JOB_ID"
rm -f "$run/.stop" "$run/.exclude"
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


def test_the_doctor_asks_for_what_the_run_would_and_gives_another_command():
    nodes_run = ["doctor-node", "--no-network"]
    text = doctor_script(RECIPE, RUN, shoal="/venv/bin/shoal", nodes_run=nodes_run)
    assert ' /venv/bin/shoal doctor-node --no-network "$run" &\n' in text
    run_lines, own_lines = of().splitlines(), text.splitlines()
    changed = [pair for pair in zip(run_lines, own_lines, strict=True) if pair[0] != pair[1]]
    assert len(changed) == 3  # title, name, command
    assert ("#SBATCH --job-name=tiny", "#SBATCH --job-name=tiny-doctor") in changed


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


SWEEP_EXPECTED = """\
#!/bin/bash
# The runs of a sweep of shoal, written by `shoal submit --sweep`:
#   0: tiny_r=4
#   1: tiny_r=8
#SBATCH --array=0-1%1
#SBATCH --job-name=tiny
"""


def sweep_of(folder: Path, runs: list[Path], at_most: int | None = None) -> str:
    recipe = dataclasses.replace(RECIPE, slurm=dataclasses.replace(RECIPE.slurm, setup=[]))
    submissions = tuple(
        Submission(
            recipe=recipe,
            resolved="",
            run_dir=run,
            parent=None,
            key="",
            shoal="shoal",
            version="0.1.0",
        )
        for run in runs
    )
    return sweep_script(Sweep(submissions=submissions, folder=folder, at_most=at_most), "tiny")


def test_the_script_of_a_sweep():
    folder = Path("/shared/100% runs/.sweeps/tiny")
    text = sweep_of(folder, [Path("/s/tiny_r=4"), Path("/s/tiny_r=8")], at_most=1)
    assert text.startswith(SWEEP_EXPECTED)
    log = "/shared/100%% runs/.sweeps/tiny/%a/logs/slurm.log"
    assert f'\n#SBATCH --output="{log}"\n' in text
    assert "\n#SBATCH --array=0-1\n" in sweep_of(folder, [Path("/s/a"), Path("/s/b")])


@dataclasses.dataclass
class Ended:
    """What came of a script that bash has run, with SLURM's commands replaced."""

    status: int
    asked: list[str]


def run_script(tmp_path: Path, text: str, run: Path, *, status: str | None, job: str, **env: str):
    """`job` is what SLURM says of the job, as `scontrol show job` prints it."""
    programs, asked = tmp_path / "bin", tmp_path / "asked"
    programs.mkdir()
    write = f"echo {status} > '{run}/.status'; exit 9" if status else "exit 9"
    shows = f'case $3 in job) echo "JobId=7 {job} BatchFlag=1";; *) echo n1;; esac'
    bodies = {
        "srun": f"echo srun \"$@\" >> {asked}; [ ! -f '{run}/.bad' ] || "
        f"cp '{run}/.bad' '{run}/.exclude'; {write}",
        "scontrol": f'case $* in *show*) {shows};; *) echo scontrol "$@" >> {asked};; esac',
        "scancel": f'echo scancel "$@" >> {asked}',
        "sleep": "true",
    }
    for name, body in bodies.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    file = tmp_path / "job.sh"
    file.write_text(text)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "SLURM_JOB_NODELIST": "n1", **env}
    ended = subprocess.run(["bash", str(file)], env=environment, capture_output=True, text=True)
    assert "syntax" not in ended.stderr, ended.stderr
    return Ended(status=ended.returncode, asked=asked.read_text().splitlines())


@pytest.mark.parametrize(
    ("status", "restarts", "job", "asked", "left"),
    [
        ("0", "0", "JobState=RUNNING Reason=None Restarts=0", [], 0),
        ("1", "0", "JobState=RUNNING Reason=None Restarts=0", [], 1),
        ("75", "2", "JobState=RUNNING Reason=None Restarts=2", ["scontrol requeue 7"], 75),
        ("75", "3", "JobState=RUNNING Reason=None Restarts=3", [], 75),
        ("75", "1", "JobState=RUNNING Reason=None Restarts=2", [], 75),  # it runs elsewhere
        (
            "75",
            "1",
            "JobState=CANCELLED Reason=None Restarts=1",
            [],
            75,
        ),  # which queuing again would undo
        ("130", "0", "JobState=RUNNING Reason=None Restarts=0", ["scancel 7"], 130),
        ("130", "0", "JobState=RUNNING Reason=None Restarts=1", [], 130),
        (None, "0", "JobState=RUNNING Reason=None Restarts=0", [], 1),
    ],
)
def test_the_end_of_the_script(
    tmp_path: Path, status: str | None, restarts: str, job: str, asked: list[str], left: int
):
    run = tmp_path / "my run"
    run.mkdir()
    recipe = dataclasses.replace(RECIPE, slurm=dataclasses.replace(RECIPE.slurm, setup=[]))
    text = script(recipe, run, shoal="shoal")
    numbers = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": restarts}
    ended = run_script(tmp_path, text, run, status=status, job=job, **numbers)
    assert ended.status == left
    assert ended.asked[1:] == asked


def test_bad_nodes_are_left_out_after_queuing_again(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".exclude").write_text("of an earlier start")
    (run / ".bad").write_text("n7,n[3-4]\n")
    recipe = dataclasses.replace(RECIPE, slurm=dataclasses.replace(RECIPE.slurm, setup=[]))
    text = script(recipe, run, shoal="shoal")
    job = "JobState=RUNNING Reason=None Restarts=0"
    ended = run_script(tmp_path, text, run, status="75", job=job, SLURM_JOB_ID="7")
    assert ended.asked[1:] == [
        "scontrol requeue 7",
        "scontrol update JobId=7 ExcNodeList=n7,n[3-4]",
    ]


@pytest.mark.parametrize(
    ("status", "asked"), [("75", "scontrol requeue 5_1"), ("130", "scancel 5_1")]
)
def test_a_run_of_a_sweep_acts_on_its_own_task_alone(tmp_path: Path, status: str, asked: str):
    """Even the last task, whose number is the array's."""
    folder, runs = tmp_path / "sweep", [tmp_path / "a run", tmp_path / "b run"]
    folder.mkdir()
    for number, run in enumerate(runs):
        run.mkdir()
        (folder / str(number)).symlink_to(run)
    array = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "5"}
    text, job = sweep_of(folder, runs), "JobState=RUNNING Reason=None Restarts=0"
    ended = run_script(tmp_path, text, runs[1], status=status, job=job, **array)
    assert ended.asked[0].endswith(f"shoal node {runs[1]}")
    assert ended.asked[1:] == [asked]
