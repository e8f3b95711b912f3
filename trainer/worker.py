"""One rank, from its job to its result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from adapters import checkpoint, checkpoint_folder
from adapters.base import load_base
from adapters.tokenizer import load_tokenizer, pad_token_id
from recipes.errors import AdapterError, DataError, TrainingError
from recipes.files import write_whole
from recipes.resolved import digest
from trainer import state
from trainer.device import rank_device
from trainer.engine import Engine, build_engine
from trainer.evaluation import Scored, predictions, score_rows, scores
from trainer.generation import generate
from trainer.job import Job
from trainer.loop import Loop, StepResult
from trainer.metrics import StepLog
from trainer.order import Order, num_steps
from trainer.reporter import Reporter, SilentReporter
from trainer.shards import Split, open_split, read_manifest


def work(job: Job, reporter: Reporter) -> dict[str, Any]:
    """Do a job as one rank of an initialised process group; the result is the same on all ranks.

    `{"steps": steps taken so far, "stopped": before the end, "checkpoint": folder or None,
    "before": evaluation or None, "after": evaluation or None}`
    """
    rank = _Rank(job, reporter if dist.get_rank() == 0 else SilentReporter())
    if job.action == "evaluate":
        return {"after": rank.evaluate("after")}
    return rank.train()


class _Rank:
    """What the parts of one rank's work share."""

    def __init__(self, job: Job, reporter: Reporter) -> None:
        self.job = job
        self.recipe = job.recipe
        self.reporter = reporter
        self.is_first = dist.get_rank() == 0
        self.device = rank_device()
        if self.device.type == "cpu":
            torch.set_num_threads(self.recipe.cluster.cpus_per_worker)
        self.manifest = read_manifest(job.prepared)
        self.split = open_split(job.prepared, "train")
        self.order = Order(
            num_rows=len(self.split),
            seed=self.recipe.seed,
            global_batch_size=self.recipe.train.global_batch_size,
            micro_batch_size=self.recipe.train.micro_batch_size,
        )
        self.num_steps = num_steps(
            steps=self.recipe.train.steps,
            epochs=self.recipe.train.epochs,
            num_rows=len(self.split),
            batch_size=self.recipe.train.global_batch_size,
        )
        self.tokenizer = load_tokenizer(job.base_folder)
        self.pad_token_id = pad_token_id(self.tokenizer)
        self.engine, self.first_step = self._build()

    def _build(self) -> tuple[Engine, int]:
        self.reporter.phase("loading the base", 0, 0)
        saved = None
        if self.job.resume_from is not None:
            checkpoint_folder.check_base(self.job.resume_from, self.job.base)
            saved = checkpoint.load_state(self.job.resume_from)
        load = partial(
            load_base,
            self.job.base_folder,
            self.recipe.task,
            labels=self.manifest["labels"],
            gradient_checkpointing=self.recipe.base.gradient_checkpointing,
        )
        engine = build_engine(self.recipe, load, order=self.order, device=self.device, state=saved)
        if saved is not None:
            state.restore(engine, saved)
        self.reporter.phase("loading the base", 1, 1)
        return engine, saved.step if saved is not None else 0

    def train(self) -> dict[str, Any]:
        before = None
        if self.recipe.evaluate.before and self.first_step == 0:
            before = self.evaluate("before")
        done, stopped = self._run_steps()
        folder = self._newest_checkpoint()
        after = None
        if self.recipe.evaluate.after and not stopped:
            after = self.evaluate("after")
        return {
            "steps": done,
            "stopped": stopped,
            "checkpoint": str(folder) if folder else None,
            "before": before,
            "after": after,
        }

    def _run_steps(self) -> tuple[int, bool]:
        """Train to the end, or until asked to stop: steps done, and whether it stopped early."""
        loop = Loop(
            recipe=self.recipe,
            engine=self.engine,
            split=self.split,
            order=self.order,
            num_steps=self.num_steps,
            pad_token_id=self.pad_token_id,
            stop_requested=self.reporter.stop_requested,
        )
        logs = self._open_logs()
        seconds: list[float] = []
        for result in loop.steps(self.first_step):
            seconds.append(result.seconds)
            self._tell(result, logs, seconds)
            last = result.step == self.num_steps
            every = self.recipe.checkpoint.every_steps
            if last or result.stop or (every and result.step % every == 0):
                self._save(result.step)
            if result.stop and not last:
                self.reporter.event("stopped", {"step": result.step})
                return result.step, True
        return self.num_steps, False

    def _open_logs(self) -> tuple[StepLog, StepLog] | None:
        if not self.is_first:
            return None
        run_dir = self.job.run_dir
        return (
            StepLog(run_dir / "metrics.jsonl", resume_after=self.first_step),
            StepLog(run_dir / "ledger" / "samples.jsonl", resume_after=self.first_step),
        )

    def _tell(
        self, result: StepResult, logs: tuple[StepLog, StepLog] | None, seconds: list[float]
    ) -> None:
        if not math.isfinite(result.loss):
            raise TrainingError(
                f"step {result.step}: the loss is {result.loss}. Lower train.learning_rate = "
                f"{self.recipe.train.learning_rate}, or warm up with train.warmup_steps"
            )
        if logs is None:
            return
        line = {name: value for name, value in asdict(result).items() if name != "stop"}
        line["time"] = datetime.now(UTC).isoformat(timespec="milliseconds")
        line["tokens_per_s"] = result.tokens / result.seconds
        recent = seconds[-20:]
        left = (self.num_steps - result.step) * sum(recent) / len(recent)
        logs[0].append(line)
        rows = self.order.rows(result.step - 1)
        samples = [sample for row in rows for sample in self.split.samples(row)]
        logs[1].append({"step": result.step, "samples": samples})
        self.reporter.step({**line, "steps": self.num_steps, "seconds_left": left})

    def _save(self, step: int) -> None:
        """Save a checkpoint. All ranks gather, the first writes, all wait."""
        self.reporter.phase("saving", 0, 0)
        saved = state.gather(self.engine, step)
        if (
            self.first_step == 0
            and checkpoint.fingerprint(saved.master) == self.engine.first_values
        ):
            raise AdapterError(
                f"adapter: nothing in it changed in {step} steps. Check adapter.targets and "
                "train.learning_rate"
            )
        problem: list[Any] = [None]
        if self.is_first:
            try:
                self._write(saved)
            except Exception as error:  # told to the other ranks, which wait below
                problem = [error]
        dist.broadcast_object_list(problem, src=0)
        if problem[0] is not None:
            raise problem[0]
        self.reporter.phase("saving", 1, 1)

    def _write(self, saved: checkpoint.TrainerState) -> None:
        checkpoints = self.job.run_dir / "checkpoints"
        folder = checkpoint.save(
            checkpoints,
            self.engine.model,
            saved,
            base=self.job.base,
            recipe_digest=digest(self.recipe),
        )
        checkpoint_folder.prune(checkpoints, self.recipe.checkpoint.keep)
        self.reporter.event("checkpoint", {"step": saved.step, "folder": str(folder)})

    def _newest_checkpoint(self) -> Path | None:
        folders = sorted((self.job.run_dir / "checkpoints").glob("step_*"))
        return folders[-1] if folders else None

    def evaluate(self, when: str) -> dict[str, Any] | None:
        """Measure on the held-out rows and answer a few prompts; None without held-out rows."""
        if self.manifest["splits"]["held_out"]["rows"] == 0:
            return None
        split: Split = open_split(self.job.prepared, "held_out")
        name = f"evaluating {when}"
        rows = score_rows(
            self.engine,
            split,
            task=self.recipe.task,
            batch_size=self.recipe.evaluate.batch_size,
            pad_token_id=self.pad_token_id,
            progress=lambda done, total: self.reporter.phase(name, done, total),
        )
        found = {"scores": scores(rows), "answers": self._answers(when)}
        if self.is_first:
            self._write_evaluation(when, found, rows)
        self.reporter.event("evaluated", {"when": when, **found})
        return found

    def _answers(self, when: str) -> list[dict[str, str]]:
        if self.recipe.task != "causal_lm" or not self.recipe.evaluate.generate:
            return []
        prompts = _read_lines(self.job.prepared / "prompts.jsonl")[: self.recipe.evaluate.generate]
        texts = [""] * len(prompts)
        if self.is_first or self.engine.stage == 3:  # a sharded base needs every rank
            with self.engine.precision():
                texts = generate(
                    self.engine.model,
                    self.tokenizer,
                    [prompt["prompt_ids"] for prompt in prompts],
                    max_new_tokens=self.recipe.evaluate.max_new_tokens,
                    device=self.device,
                    progress=lambda done, total: self.reporter.phase(
                        f"answering {when}", done, total
                    ),
                )
            self.reporter.phase(f"answering {when}", 1, 1)
        return [
            {"prompt": prompt["messages"][-1]["content"], "right": prompt["answer"], "answer": text}
            for prompt, text in zip(prompts, texts, strict=True)
        ]

    def _write_evaluation(self, when: str, found: Mapping[str, Any], rows: list[Scored]) -> None:
        folder = self.job.run_dir / "evaluation"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{when}.json", json.dumps(found, ensure_ascii=False, indent=2))
        names = list(self.manifest["labels"]) or list(self.recipe.evaluate.choices)
        lines = [
            {
                "sample": prediction.sample,
                "right": names[prediction.answer],
                "predicted": names[prediction.predicted],
            }
            for prediction in predictions(rows)
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_whole(folder / "predictions.jsonl", text)


def _read_lines(file: Path) -> list[dict[str, Any]]:
    try:
        # Not splitlines(): texts may hold U+2028, which it takes for the end of a line.
        lines = file.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"{file}: prepared prompts cannot be read: {error}") from error
