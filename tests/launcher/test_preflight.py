"""Room for the checkpoints of a run, as each node sees it."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from adapters.checkpoint_folder import predicted_bytes
from cluster.room import free_bytes
from launcher.plan.disk import kept_checkpoints
from launcher.preflight import check_room
from recipes.errors import StorageError
from support.jobs import recipe


def test_the_node_with_too_little_room_is_named():
    chosen = recipe()
    kept = kept_checkpoints(chosen.checkpoint, chosen.train.steps)
    needed = (kept + 1) * predicted_bytes(1000)
    check_room(chosen, {"n1": needed, "n2": needed}, 1000)
    with pytest.raises(
        StorageError, match=rf"storage\.path = .*: on n2 it has room for .*{needed:,}"
    ):
        check_room(chosen, {"n1": 10 * needed, "n2": needed - 1, "n3": needed}, 1000)


def test_nodes_tell_the_room_of_a_folder_that_will_be(local_ray: None, tmp_path: Path):
    (free,) = free_bytes(tmp_path / "not" / "yet").items()
    assert free[0] == socket.gethostname()
    total = shutil.disk_usage(tmp_path).total
    assert 0 < free[1] <= total
