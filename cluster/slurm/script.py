"""The batch script of a run, as a function of its recipe: what `shoal submit` hands to sbatch."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster.job import Sweep
from cluster.job_words import (
    ASK_AGAIN,
    EXCLUDE_FILE,
    INTERRUPTED,
    PREEMPTED,
    STATUS_FILE,
    STOP_FILE,
)
from recipes.recipe import Recipe

_LOG = "slurm.log"

_SCRIPT = """\
#!/bin/bash
# {title}
{options}

run={run}
job={job}
rm -f "$run/{stop_file}" "$run/{exclude_file}"
# SLURM sends this before the time limit, and before it gives the nodes to a more urgent job. Not to
# srun, which would hand it to every process of Ray; the run looks for the file.
trap 'echo {preempted} > "$run/{stop_file}"' USR1
{setup}
# A password of the job's own Ray, which its processes inherit.
RAY_AUTH_TOKEN=$(od -An -vN32 -tx1 /dev/urandom | tr -d ' \\n')
SHOAL_NODES=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tr '\\n' ' ')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN SHOAL_NODES

# One task a node. The first drives the run; its exit status, which it leaves behind, is the run's.
rm -f "$run/{status_file}"
{srun} "$run" &
while wait $!; kill -0 $! 2>/dev/null; do :; done
status=$(cat "$run/{status_file}" 2>/dev/null || echo 1)

# Where SLURM had lost sight of this node, the job may have been queued again, and run elsewhere.
requeues=${{SLURM_RESTART_COUNT:-0}}
is_mine() {{
    scontrol --oneliner show job "$job" | grep -q " JobState=RUNNING .* Restarts=$requeues "
}}
if [ "$status" = {ask_again} ] && [ "$requeues" -lt {max_requeues} ] && is_mine; then
    trap '' TERM  # which queuing again sends, before the bad nodes are left out
    scontrol requeue "$job" && [ -s "$run/{exclude_file}" ] &&
        scontrol update JobId="$job" ExcNodeList="$(cat "$run/{exclude_file}")"
elif [ "$status" = {interrupted} ] && is_mine; then
    scancel "$job" && sleep 300
fi
exit "$status"
"""

# The number of an array's last task is also the array's own: by it all tasks would be meant.
_JOB, _TASK = '"$SLURM_JOB_ID"', '"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"'


def script(recipe: Recipe, run_dir: Path, *, shoal: str) -> str:
    """What SLURM runs for a run that lies in `run_dir`; `shoal` is the command on the nodes."""
    return _filled(
        recipe,
        title="The job of a run of shoal, written by `shoal submit`.",
        options=[*_options(recipe, recipe.name, str(log_file(_literal(run_dir))))],
        run=shlex.quote(str(run_dir)),
        job=_JOB,
        shoal=shoal,
    )


def doctor_script(recipe: Recipe, folder: Path, *, shoal: str, nodes_run: Sequence[str]) -> str:
    """What SLURM runs to look at the nodes that a run of the recipe would get; `nodes_run` is what
    each of them gives the command, with the folder last."""
    return _filled(
        recipe,
        title="A look at the nodes that a run would get, written by `shoal doctor`.",
        options=[*_options(recipe, f"{recipe.name}-doctor", str(log_file(_literal(folder))))],
        run=shlex.quote(str(folder)),
        job=_JOB,
        shoal=shoal,
        nodes_run=nodes_run,
    )


def sweep_script(sweep: Sweep, name: str) -> str:
    """What SLURM runs for each run of a sweep: a job array, in whose folder each number leads to a
    run. What is asked of SLURM is in all recipes the same; `name` is what it calls the array."""
    first = sweep.submissions[0]
    throttle = f"%{sweep.at_most}" if sweep.at_most is not None else ""
    array = f"--array=0-{len(sweep.submissions) - 1}{throttle}"
    title = ["The runs of a sweep of shoal, written by `shoal submit --sweep`:"]
    title += [f"  {n}: {one.run_dir.name}" for n, one in enumerate(sweep.submissions)]
    output = str(log_file(_literal(sweep.folder) / "%a"))
    return _filled(
        first.recipe,
        title="\n# ".join(title),
        options=[array, *_options(first.recipe, name, output)],
        run=f'$(realpath {shlex.quote(str(sweep.folder))}/"$SLURM_ARRAY_TASK_ID")',
        job=_TASK,
        shoal=first.shoal,
    )


def _filled(
    recipe: Recipe,
    *,
    title: str,
    options: list[str],
    run: str,
    job: str,
    shoal: str,
    nodes_run: Sequence[str] = ("node",),
) -> str:
    slurm = recipe.slurm
    return _SCRIPT.format(
        title=title,
        options="\n".join(f"#SBATCH {option}" for option in options),
        run=run,
        job=job,
        setup="\n".join(["", *slurm.setup, ""]) if slurm.setup else "",
        srun=shlex.join([*_srun(recipe), slurm.shoal or shoal, *nodes_run]),
        stop_file=STOP_FILE,
        exclude_file=EXCLUDE_FILE,
        preempted=PREEMPTED,
        status_file=STATUS_FILE,
        ask_again=ASK_AGAIN,
        max_requeues=slurm.max_requeues,
        interrupted=INTERRUPTED,
    )


def log_file(run_dir: Path) -> Path:
    """What the job prints."""
    return run_dir / "logs" / _LOG


def cpus_per_node(recipe: Recipe) -> int:
    """CPU cores to ask for on each node: what its share of the workers needs, if not told."""
    share = math.ceil(recipe.cluster.most_workers / recipe.slurm.nodes)
    return recipe.slurm.cpus_per_node or share * recipe.cluster.cpus_per_worker


def _options(recipe: Recipe, name: str, output: str) -> Iterator[str]:
    slurm = recipe.slurm
    yield f"--job-name={_word(name)}"
    yield f"--nodes={slurm.nodes}"
    yield "--ntasks-per-node=1"
    yield f"--cpus-per-task={cpus_per_node(recipe)}"
    named = {
        "mem": slurm.memory,
        "gpus-per-node": slurm.gpus_per_node,
        "gres": slurm.gres,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "reservation": slurm.reservation,
        "time": slurm.time,
        "exclude": ",".join(slurm.exclude),
    }
    yield from (f"--{name}={_word(str(value))}" for name, value in named.items() if value)
    if slurm.exclusive:
        yield "--exclusive"
    yield f"--output={_word(output)}"
    yield "--open-mode=append"
    yield f"--signal=B:USR1@{slurm.signal_s}"
    yield "--requeue" if slurm.max_requeues else "--no-requeue"
    yield from _no_kill(recipe)
    yield from slurm.extra


def _literal(path: Path) -> Path:
    """As it stands in a pattern of SLURM's, where a percent sign begins what is filled in."""
    return Path(str(path).replace("%", "%%"))


def _no_kill(recipe: Recipe) -> list[str]:
    """A run that can do with fewer workers outlives a node; for others SLURM queues the job again,
    and gives it another one."""
    return ["--no-kill"] if recipe.cluster.least_workers < recipe.cluster.most_workers else []


def _word(value: str) -> str:
    """As one word of an #SBATCH line, which knows double quotes but no shell."""
    return f'"{value}"' if any(letter in value for letter in " \t'#&|;()") else value


def _srun(recipe: Recipe) -> list[str]:
    slurm = recipe.slurm
    cpus = f"--cpus-per-task={cpus_per_node(recipe)}"
    # A cluster's own default may be to hand on less than the job has.
    command = ["srun", "--export=ALL", *_no_kill(recipe), "--kill-on-bad-exit=0", cpus]
    if slurm.container_image is not None:
        command.append(f"--container-image={slurm.container_image}")
        if slurm.container_mounts:
            command.append(f"--container-mounts={','.join(slurm.container_mounts)}")
    return command
