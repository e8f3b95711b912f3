"""One rank, from its job to its result."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from adapters import checkpoint, checkpoint_folder
from adapters.base import load_base
from adapters.base_copy import on_this_node
from adapters.checkpoint_folder import Position, folder_of
from adapters.mirror import open_mirror
from adapters.proof import Question
from adapters.quantization import quantization_of
from adapters.tokenizer import load_tokenizer, pad_token_id, read_template
from recipes.errors import BadLossError, DataError
from recipes.files import write_whole
from recipes.recipe import Recipe
from trainer import state
from trainer.device import rank_device
from trainer.engine import Engine, build_engine
from trainer.evaluation import Scored, predictions, score_rows, scores, scores_by_source
from trainer.generation import generate
from trainer.job import Job
from trainer.loop import Loop, StepResult
from trainer.order import num_steps, order_of
from trainer.peaks import gather_peaks
from trainer.proof import Proof
from trainer.publisher import Publisher
from trainer.pulse import Pulse
from trainer.record import Record
from trainer.reporter import Reporter, SilentReporter
from trainer.saver import Saver
from trainer.shards import read_manifest, training_digest
from trainer.spikes import LossWatch
from trainer.split import Split, open_split

_PROOF_TOKENS = 32


def work(job: Job, reporter: Reporter, pulse: Pulse | None = None) -> dict[str, Any]:
    """Do a job as one rank of an initialised process group; the result is the same on all ranks.

    `{"steps": steps taken so far, "stopped": before the end, "checkpoint": folder or None,
    "after": evaluation or None}`
    """
    rank = _Rank(job, reporter if dist.get_rank() == 0 else SilentReporter(), pulse or Pulse())
    if job.action == "evaluate":
        after = rank.evaluate("after", rank.first_step)
        rank.publisher.push_records()
        return {"after": after, "stopped": False}
    return rank.train()


class _Rank:
    """What the parts of one rank's work share."""

    def __init__(self, job: Job, reporter: Reporter, pulse: Pulse) -> None:
        self.job = job
        self.recipe = job.recipe
        self.reporter = reporter
        self.pulse = pulse
        self.is_first = dist.get_rank() == 0
        self.device = rank_device()
        if self.device.type == "cpu":
            torch.set_num_threads(self.recipe.cluster.cpus_per_worker)
        self.mirror = open_mirror(job.run_dir, job.address)
        self.mirror.join()
        self.manifest = read_manifest(job.prepared)
        self.multi_label = bool(self.manifest["multi_label"])
        self.mixture = tuple(self.manifest["mixture"])
        self.split = open_split(job.prepared, "train")
        position = Position(step=0)
        if job.resume_from is not None:
            self.mirror.fetch(job.resume_from)
            position = checkpoint_folder.read_position(job.resume_from)
        self.first_step = position.step
        self.order = order_of(
            self.recipe, self.split.tokens, skipped=(*position.skipped, *job.skip)
        )
        self.num_steps = num_steps(
            steps=self.recipe.train.steps,
            epochs=self.recipe.train.epochs,
            num_rows=len(self.split),
            batch_size=self.recipe.train.global_batch_size,
        )
        self.base_folder = self._base_here()
        self.tokenizer = load_tokenizer(
            self.base_folder,
            self.recipe.base.new_tokens,
            read_template(self.recipe.data.chat_template),
        )
        self.pad_token_id = pad_token_id(self.tokenizer)
        self.losses = LossWatch(self.recipe.failure.spike_factor, position.recent_losses)
        self.saver = Saver()
        self.last_saved = self.first_step
        self.checkpoint = job.resume_from
        self.engine = self._build()
        self.publisher = Publisher(
            job=job,
            engine=self.engine,
            data_digest=training_digest(self.manifest),
            labels=tuple(self.manifest["labels"]),
            multi_label=self.multi_label,
            mirror=self.mirror,
            reporter=self.reporter,
            is_new=self.first_step == 0,
        )

    def _base_here(self) -> Path:
        """Where this rank reads the base: on its node's own disk, if the recipe says so."""
        copy_to = self.recipe.base.copy_to
        if copy_to is None:
            return self.job.base_folder
        self.reporter.phase("copying the base", 0, 0)
        self.pulse.mark("copying the base", self.first_step)
        local = on_this_node(self.job.base_folder, self.job.base, copy_to)
        if local.copied_bytes:
            # Not print, which Ray Train replaces by one that shows a line twice.
            sys.stdout.write(f"Copied the base to {local.folder}: {local.copied_bytes:,} bytes\n")
            sys.stdout.flush()
        self.reporter.phase("copying the base", 1, 1)
        return local.folder

    def _build(self) -> Engine:
        self.reporter.phase("loading the base", 0, 0)
        self.pulse.mark("loading the base", self.first_step)
        recipe = self.recipe
        saved = None
        if self.job.resume_from is not None:
            checkpoint_folder.check_base(self.job.resume_from, self.job.base)
            if self.job.action == "train":
                checkpoint_folder.check_data(self.job.resume_from, training_digest(self.manifest))
            saved = checkpoint.load_state(self.job.resume_from)
            recipe = _with_dtype_of(self.job.resume_from, recipe)
        load = partial(
            load_base,
            self.base_folder,
            recipe.task,
            labels=self.manifest["labels"],
            multi_label=self.multi_label,
            gradient_checkpointing=recipe.base.gradient_checkpointing,
            quantization=quantization_of(recipe.base, self.device),
            allow_pickle=recipe.base.allow_pickle,
            new_tokens=recipe.base.new_tokens,
        )
        engine = build_engine(
            recipe,
            load,
            order=self.order,
            num_steps=self.num_steps,
            device=self.device,
            state=saved,
        )
        if saved is not None:
            state.restore(engine, saved)
        self.reporter.phase("loading the base", 1, 1)
        return engine

    def train(self) -> dict[str, Any]:
        if self.recipe.evaluate.before and self.first_step == 0:
            self.evaluate("before", 0)
        done, stopped = self._run_steps()
        after = None
        if self.recipe.evaluate.after and not stopped:
            after = self.evaluate("after", done)
        self._finish_saving()
        self.reporter.event("memory", {"ranks": gather_peaks(self.device)})
        self.publisher.push_records()
        return {
            "steps": done,
            "stopped": stopped,
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
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
            mixture=self.mixture if len(self.recipe.data.train) > 1 else (),
            pulse=self.pulse,
            stop_requested=self.reporter.stop_requested,
            save_due=self._save_due,
        )
        record = self._open_record()
        for result in loop.steps(self.first_step):
            self._check_loss(result)
            if record is not None:
                self.reporter.step(record.append(result))
            self.saver.check()
            last = result.step == self.num_steps
            measured = None
            if not last and _due(result.step, self.recipe.evaluate.every_steps):
                measured = self.evaluate(f"step_{result.step:06d}", result.step)
            planned = _due(result.step, self.recipe.checkpoint.every_steps)
            if last or planned or measured or result.stop or result.save:
                self._save(result.step, measured["scores"] if measured else {})
            if result.stop and not last:
                self._finish_saving()
                self.reporter.event("stopped", {"step": result.step})
                return result.step, True
        return self.num_steps, False

    def _open_record(self) -> Record | None:
        if not self.is_first:
            return None
        self.mirror.fetch_curve(self.first_step)
        return Record(
            self.job.run_dir,
            after=self.first_step,
            num_steps=self.num_steps,
            order=self.order,
            split=self.split,
        )

    def _check_loss(self, result: StepResult) -> None:
        why = self.losses.why_bad(result.loss)
        if why is None:
            return
        self._finish_saving()
        step = result.step - 1
        first = self.last_saved if self.recipe.failure.bad_loss == "rewind" else step
        samples = [sample for row in self.order.rows(step) for sample in self.split.samples(row)]
        shown = ", ".join(str(sample) for sample in samples[:8])
        raise BadLossError(
            f"step {result.step}: {why}. Its samples are {shown}"
            f"{', …' if len(samples) > 8 else ''}. Lower train.learning_rate = "
            f"{self.recipe.train.learning_rate}, warm up with train.warmup_steps, or leave such "
            "batches out with failure.bad_loss = skip",
            tuple(self.order.batch(number) for number in range(first, step + 1)),
        )

    def _save_due(self) -> bool:
        minutes = self.recipe.checkpoint.every_minutes
        return minutes is not None and self.saver.minutes_since_last() >= minutes

    def _save(self, step: int, scores: Mapping[str, float]) -> None:
        """Begin to save a checkpoint: all ranks give their parts, rank 0 writes while all go on."""
        begin = time.perf_counter()
        self.pulse.mark("saving", step)
        self.saver.finish()
        gathered = state.gather(self.engine, step)
        proof = None
        if self.recipe.checkpoint.prove and self.last_saved == 0:
            proof = Proof.of(self.engine, self._question())
        self.last_saved = step
        if gathered is not None:
            position = Position(
                step=step,
                skipped=self.order.skipped,
                recent_losses=self.losses.recent,
                scores=scores,
            )
            adapter = checkpoint.adapter_of(self.engine.attached, gathered, self.engine.shapes)
            stall_s = time.perf_counter() - begin
            publish = partial(self.publisher.publish, gathered, adapter, position)
            self.saver.save(partial(publish, stall_s=stall_s, proof=proof))

    def _question(self) -> Question:
        """What the first checkpoint is to answer when it is opened again."""
        return Question(
            base=self.recipe.base,
            base_folder=self.base_folder,
            task=self.recipe.task,
            dtype="bfloat16" if self.engine.bfloat16 else "float32",
            labels=self.manifest["labels"],
            multi_label=self.multi_label,
            ids=tuple(self.split[0].input_ids[:_PROOF_TOKENS].tolist()),
            on_gpu=self.device.type == "cuda",
        )

    def _finish_saving(self) -> None:
        """Wait, on all ranks, until the last checkpoint is published."""
        self.pulse.mark("saving", self.last_saved)
        self.reporter.phase("saving", 0, 0)
        self.saver.finish()
        dist.barrier()
        if self.last_saved > self.first_step:
            self.checkpoint = folder_of(self.job.run_dir / "checkpoints", self.last_saved)
        self.reporter.phase("saving", 1, 1)

    def evaluate(self, when: str, step: int) -> dict[str, Any] | None:
        """Measure on the held-out rows what `step` steps have made, and answer a few prompts; None
        without held-out rows."""
        if self.manifest["splits"]["held_out"]["rows"] == 0:
            return None
        self.pulse.mark("evaluating", 0)
        split: Split = open_split(self.job.prepared, "held_out")
        name = f"evaluating {when.replace('_', ' ')}"
        rows = score_rows(
            self.engine,
            split,
            task=self.recipe.task,
            batch_size=self.recipe.evaluate.batch_size,
            pad_token_id=self.pad_token_id,
            progress=lambda done, total: self.reporter.phase(name, done, total),
        )
        found = {
            "step": step,
            "scores": scores(
                rows, is_causal=self.recipe.task == "causal_lm", multi_label=self.multi_label
            ),
            "sources": scores_by_source(rows, self.mixture, multi_label=self.multi_label),
            "answers": self._answers(when),
        }
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
        lines = []
        for prediction in predictions(rows):
            right, predicted = (
                [names[number] for number in found]
                for found in (prediction.right, prediction.predicted)
            )
            if not self.multi_label:
                [right], [predicted] = right, predicted
            lines.append({"sample": prediction.sample, "right": right, "predicted": predicted})
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_whole(folder / "predictions.jsonl", text)


def _read_lines(file: Path) -> list[dict[str, Any]]:
    try:
        # Not splitlines(): texts may hold U+2028, which it takes for the end of a line.
        lines = file.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"{file}: prepared prompts cannot be read: {error}") from error


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _with_dtype_of(folder: Path, recipe: Recipe) -> Recipe:
    """`auto` is measured anew on every machine; a run goes on in what it began with."""
    dtype = checkpoint_folder.read_manifest(folder)["dtype"]
    return dataclasses.replace(recipe, base=dataclasses.replace(recipe.base, dtype=dtype))
