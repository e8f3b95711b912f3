"""What each node of a job does: the first drives the run, the others lend themselves to it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from cluster.job_words import STATUS_FILE
from cluster.slurm.membership import Membership
from launcher.records import jobs
from launcher.terminal import open_display
from recipes.files import write_whole
from recipes.load import load


def work_as_node(
    run_dir: Path, drive: Callable[[], None], status_of: Callable[[Callable[[], None]], int]
) -> int:
    """This node's exit status; `status_of` tells its errors.

    The first node drives. Its status is the run's and is also left in the run's folder for the
    job's script: srun's would be that of whichever node failed first.
    """
    membership = Membership.from_environment()
    if membership.index > 0:
        return status_of(lambda: _lend(run_dir, membership))
    status = status_of(lambda: jobs.noted(run_dir, drive))
    write_whole(run_dir / STATUS_FILE, f"{status}\n")
    return status


def _lend(run_dir: Path, membership: Membership) -> None:
    from cluster.slurm.allocation import lend, queue_again

    # What ends a run ends its nodes by way of the first.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with open_display() as display:
        recipe = load(run_dir / "recipe.yaml").recipe
        if not lend(membership, recipe.cluster, display.line):
            queue_again(membership, lambda found: jobs.note_exclusion(run_dir, found, display))
