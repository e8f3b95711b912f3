"""A loss that is no number, batches that are left out, and measuring on the way."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from recipes.checkpoint import Checkpoint
from recipes.errors import BadLossError
from recipes.evaluate import Evaluate
from recipes.failure import Failure
from recipes.train import Train
from support import jobs
from support.ranks import run_ranks
from trainer.ledger import read_ledger
from trainer.order import Order
from trainer.split import open_split


@pytest.fixture(scope="module")
def poisoned(folders: Path) -> int:
    """Beside the others a base, `poisoned`, that makes no number of one training row: which."""
    split = open_split(folders / "prepared", "train")
    rows = [set(split[number].input_ids.tolist()) for number in range(len(split))]
    token, row = next(
        (token, number)
        for number, tokens in enumerate(rows)
        for token in sorted(tokens)
        if sum(token in other for other in rows) == 1
    )
    shutil.copytree(folders / "llama", folders / "poisoned")
    file = folders / "poisoned" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.embed_tokens.weight"][token] = math.nan
    save_file(tensors, file, metadata={"format": "pt"})
    return row


def _poison(folders: Path) -> dict:
    found = {}
    for mode in ("stop", "skip", "rewind"):
        chosen = jobs.recipe(
            failure=Failure(bad_loss=mode),  # type: ignore[arg-type]
            checkpoint=Checkpoint(every_steps=1, prove=False),
        )
        try:
            jobs.train(folders, f"poisoned_{mode}", chosen, base="poisoned")
        except BadLossError as error:
            found[mode] = (str(error), error.batches)
    found["unsaved"] = None
    try:
        jobs.train(
            folders,
            "poisoned_unsaved",
            jobs.recipe(failure=Failure(bad_loss="rewind"), checkpoint=Checkpoint(prove=False)),
            base="poisoned",
        )
    except BadLossError as error:
        found["unsaved"] = error.batches
    short = Train(steps=4, global_batch_size=8, micro_batch_size=2, learning_rate=1e-2)
    again = jobs.train(
        folders,
        "poisoned_again",
        jobs.recipe(train=short),
        base="poisoned",
        skip=found["skip"][1],
    )
    return {**found, "again": again["losses"]}


def test_a_loss_that_is_no_number_names_its_samples(folders: Path, poisoned: int):
    found = run_ranks(2, _poison, folders)
    order = Order(num_rows=40, seed=1, global_batch_size=8, micro_batch_size=2)
    step = next(step for step in range(6) if poisoned in order.rows(step))
    said, batches = found["stop"]
    assert said.startswith(f"step {step + 1}: the loss is nan. Its samples are")
    assert str(poisoned) in said.partition("Its samples are")[2]
    assert batches == found["skip"][1] == found["rewind"][1] == (step,)
    assert found["unsaved"] == tuple(range(step + 1))
    entries = read_ledger(folders / "poisoned_stop" / "ledger").entries
    assert len(entries) == step  # the bad step itself is not part of the curve
    assert len(found["again"]) == 4
    assert all(math.isfinite(loss) for loss in found["again"])


def _skip(folders: Path) -> dict:
    chosen = jobs.recipe()
    whole = jobs.train(folders, "skipping", chosen, skip=(2,))
    checkpoint = Path(whole["checkpoint"]).parent / "step_000003"
    again = jobs.train(folders, "skipping_again", chosen, resume_from=checkpoint)
    plain = jobs.train(folders, "not_skipping", chosen)
    return {"whole": whole["losses"], "again": again["losses"], "plain": plain["losses"]}


def test_a_skipped_batch_stays_skipped(folders: Path):
    found = run_ranks(2, _skip, folders)
    entries = read_ledger(folders / "skipping" / "ledger").entries
    assert [entry.batch for entry in entries] == [0, 1, 3, 4, 5, 6]
    assert found["whole"][:2] == found["plain"][:2]
    assert found["whole"][2] != found["plain"][2]
    assert found["again"] == found["whole"][3:]


def _measure(folders: Path) -> dict:
    chosen = jobs.recipe(
        evaluate=Evaluate(generate=0, before=False, every_steps=2),
        checkpoint=Checkpoint(keep=1, keep_best=1, prove=False),
    )
    found = {}
    for stage in (0, 3):
        there = dataclasses.replace(chosen, zero=dataclasses.replace(chosen.zero, stage=stage))
        found[stage] = jobs.train(folders, f"measured_{stage}", there)["losses"]
    return found


@pytest.mark.parametrize("workers", [2])
def test_measuring_on_the_way_changes_nothing_and_keeps_the_best(folders: Path, workers: int):
    found = run_ranks(workers, _measure, folders)
    plain = run_ranks(workers, jobs.train_stages, folders, "unmeasured", [0, 3])
    for stage in (0, 3):
        assert found[stage] == plain[stage]["losses"]
        run = folders / f"measured_{stage}"
        manifests = [
            json.loads(file.read_text())
            for file in sorted((run / "checkpoints").glob("*/manifest.json"))
        ]
        measured = {
            step: json.loads((run / "evaluation" / f"step_{step:06d}.json").read_text())["scores"]
            for step in (2, 4)
        }
        best = min(measured, key=lambda step: measured[step]["loss"])
        assert [manifest["step"] for manifest in manifests] == [best, 6]
        assert manifests[0]["scores"] == measured[best]
