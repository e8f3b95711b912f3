"""Jobs on the tiny model, done by ranks without Ray."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from recipes.adapter import Lora
from recipes.base import Base
from recipes.checkpoint import Checkpoint
from recipes.data import Data, Source
from recipes.evaluate import Evaluate
from recipes.recipe import Recipe
from recipes.train import Train
from recipes.zero import Zero
from support import tiny


def recipe(**changes: Any) -> Recipe:
    """Six steps of 8 rows in micro-batches of 2; `changes` replace whole sections or values."""
    plain = Recipe(
        name="tiny",
        seed=1,
        base=Base(source="/tiny", dtype="float32"),
        # In plain order the random rows of the last step happen to be easier than the first ones.
        data=Data(train=[Source(path="/tiny.jsonl")], group_by_length=False),
        adapter=Lora(r=4, alpha=8, targets=["q_proj", "v_proj", "up_proj"]),
        train=Train(
            steps=6,
            global_batch_size=8,
            micro_batch_size=2,
            learning_rate=1e-2,
            schedule="linear",
            warmup_steps=2,
            max_grad_norm=1.0,
            weight_decay=0.1,
        ),
        checkpoint=Checkpoint(every_steps=3, keep=5, prove=False),
        evaluate=Evaluate(generate=0, before=False),
    )
    return dataclasses.replace(plain, **changes)


def grouped(**changes: Any) -> Recipe:
    """The same with rows grouped by length, as recipes have it."""
    return recipe(data=Data(train=[Source(path="/tiny.jsonl")]), **changes)


def make_folders(root: Path) -> None:
    """root/llama, root/bert, root/prepared (40 rows to train, 20 held out), root/labelled."""
    tiny.make_llama(root / "llama")
    tiny.make_bert(root / "bert")
    made = tiny.samples(60)
    tiny.write_prepared(
        root / "prepared",
        [tiny.row([sample], number) for number, sample in enumerate(made[:40])],
        [tiny.row([sample], number) for number, sample in enumerate(made[40:])],
    )
    labelled = [
        tiny.row([(ids, [])], number, label=number % 2, supervised=1)
        for number, (ids, _) in enumerate(made)
    ]
    tiny.write_prepared(root / "labelled", labelled[:40], labelled[40:], ["bad", "good"])


def train(
    root: Path,
    run: str,
    chosen: Recipe,
    *,
    resume_from: Path | None = None,
    base: str = "llama",
    prepared: str = "prepared",
    skip: tuple[int, ...] = (),
    reporter: Any = None,
) -> dict[str, Any]:
    """One rank's part of a run in root/run: its result and the lines of metrics.jsonl."""
    from adapters.base_ref import base_ref
    from trainer.job import Job
    from trainer.metrics import read_steps
    from trainer.reporter import SilentReporter
    from trainer.worker import work

    folder = root / base
    job = Job(
        recipe=chosen,
        run_dir=root / run,
        prepared=root / prepared,
        base_folder=folder,
        base=base_ref(str(folder), None, folder),
        resume_from=resume_from,
        skip=skip,
    )
    result = work(job, reporter or SilentReporter())
    lines = read_steps(root / run / "metrics.jsonl")
    return {**result, "losses": [line["loss"] for line in lines], "lines": lines}


def train_stages(root: Path, label: str, stages: list[int], **options: Any) -> dict[int, Any]:
    """The same recipe once under each ZeRO stage, one after another in the same processes."""
    chosen = options.pop("chosen", recipe())
    return {
        stage: train(
            root,
            f"{label}_zero{stage}",
            dataclasses.replace(chosen, zero=Zero(stage=stage)),
            **options,
        )
        for stage in stages
    }
