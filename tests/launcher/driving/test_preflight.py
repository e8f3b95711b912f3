"""Room for the checkpoints of a run, as each node sees it."""

from __future__ import annotations

import dataclasses
import shutil
import socket
from pathlib import Path

import pytest

from adapters.checkpoint_folder import predicted_bytes
from cluster.room import free_bytes
from launcher.driving.preflight import check_best_by, check_room
from launcher.plan.disk import kept_checkpoints
from recipes.checkpoint import Checkpoint
from recipes.errors import RecipeError, StorageError
from support.jobs import recipe
from trainer.label_scores import label_scores, label_set_scores


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


def test_a_score_that_the_labels_do_not_get_is_refused_with_those_they_do():
    def check(by: str, *, several: bool, task: str = "sequence_classification") -> None:
        kept = Checkpoint(keep_best=1, best_by=by)  # type: ignore[arg-type]
        chosen = dataclasses.replace(recipe(), task=task, checkpoint=kept)
        check_best_by(chosen, {"multi_label": several})

    for by in ("loss", *label_set_scores([(0, 1)], [(0,)])):
        check(by, several=True)
    for by in ("loss", *label_scores([0], [1])):
        check(by, several=False)
        check(by, several=True, task="causal_lm")  # several labels are one answer there
    with pytest.raises(
        RecipeError,
        match=r"checkpoint.best_by = accuracy: texts with several labels have no such score; there "
        r"are loss, exact_match, f1, f1_micro. A text counts for exact_match when",
    ):
        check("accuracy", several=True)
    with pytest.raises(RecipeError, match=r"there are loss, accuracy, f1$"):
        check("exact_match", several=False)
    unused = dataclasses.replace(recipe(), checkpoint=Checkpoint(best_by="accuracy"))
    check_best_by(unused, {"multi_label": True})
