"""The recipe: everything a run depends on, in one frozen value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from recipes import compatibility, zero_options
from recipes.adapter import Adalora, Adapter, Lora, VirtualTokens
from recipes.address import is_address
from recipes.base import Base
from recipes.checkpoint import Checkpoint
from recipes.cluster import Cluster
from recipes.data import Data
from recipes.data.shapes import CLASSIFIED, ONLY_PREPARED
from recipes.evaluate import Evaluate
from recipes.failure import Failure
from recipes.kuberay import KubeRay
from recipes.problem import Problem
from recipes.ray_job import RayJob
from recipes.slurm import Slurm
from recipes.storage import Storage
from recipes.train import Train
from recipes.zero import Zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    name: str
    """Name of the run's folder; the recipe's file name when left out."""

    description: str = ""
    """One line for people."""

    task: Literal["causal_lm", "sequence_classification"] = "causal_lm"
    """What the model learns: to answer or go on with a text, or to label it."""

    seed: int = 0
    """Decides the adapter's first values, the order of the rows, and dropout."""

    base: Base
    """The frozen model that adapters are trained on."""

    data: Data
    """The rows to train on, and how they become sequences of tokens."""

    adapter: Adapter = field(default_factory=Lora)
    """What is trained: a small adapter inside the frozen base."""

    train: Train = field(default_factory=Train)
    """How long and how fast to train."""

    zero: Zero = field(default_factory=Zero)
    """How DeepSpeed shards the model and the optimizer over the workers."""

    cluster: Cluster = field(default_factory=Cluster)
    """Where the workers run."""

    slurm: Slurm = field(default_factory=Slurm)
    """The job that is submitted with `cluster.kind: slurm`."""

    ray_job: RayJob = field(default_factory=RayJob)
    """The job that is submitted with `cluster.kind: ray_job`."""

    kuberay: KubeRay = field(default_factory=KubeRay)
    """The RayJob that is written with `cluster.kind: kuberay`."""

    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    """When the adapter and the optimizer state are saved."""

    failure: Failure = field(default_factory=Failure)
    """What a run does when something goes wrong."""

    evaluate: Evaluate = field(default_factory=Evaluate)
    """What is measured on the held-out rows, before and after training."""

    storage: Storage = field(default_factory=Storage)
    """Where runs and prepared data lie."""

    def problems(self) -> Iterator[Problem]:
        """Rules between sections; each section knows its own."""
        if (
            not self.name
            or self.name != self.name.strip()
            or "/" in self.name
            or self.name[0] == "."
        ):
            yield Problem(
                path="name",
                value=self.name,
                message="is no name for a folder",
                allowed="a word without slashes that does not begin with a dot",
            )
        if self.seed < 0:
            yield Problem(path="seed", value=self.seed, message="is negative", allowed="≥ 0")
        yield from self._worker_problems()
        yield from self._slurm_problems()
        yield from self._kuberay_problems()
        if self.task == "sequence_classification":
            yield from self._classification_problems()
        else:
            yield from self._causal_problems()
        if self.task == "causal_lm" and self.data.labels:
            yield Problem(
                path="data.labels",
                value=list(self.data.labels),
                message="a causal model has no labels",
                hint="Put the possible answers into evaluate.choices",
            )
        measured = {
            "evaluate.choices": list(self.evaluate.choices),
            "evaluate.every_steps": self.evaluate.every_steps,
        }
        for path, value in measured.items():
            if value and not self.data.holds_out:
                yield Problem(
                    path=path,
                    value=value,
                    message="there are no held-out rows to measure on",
                    hint="Set data.held_out or data.held_out_fraction",
                )
        yield from self._best_problems()
        yield from self._optimizer_problems()
        yield from compatibility.problems(self.base, self.adapter, self.zero)
        yield from zero_options.problems(self.zero, self.cluster, self._workers_per_node())
        if self.base.new_tokens and not isinstance(self.adapter, Lora):
            yield Problem(
                path="base.new_tokens",
                value=list(self.base.new_tokens),
                message=f"adapter.kind = {self.adapter.kind} does not train their embeddings, and "
                "they begin as the mean of all",
                hint="Set adapter.kind: lora, or leave base.new_tokens out",
            )
        if isinstance(self.adapter, Adalora):
            yield from self._allocation_problems(self.adapter)
        if isinstance(self.adapter, VirtualTokens):
            yield from self._virtual_token_problems()

    def _best_problems(self) -> Iterator[Problem]:
        if self.checkpoint.keep_best == 0:
            return
        if self.evaluate.every_steps is None:
            yield Problem(
                path="checkpoint.keep_best",
                value=self.checkpoint.keep_best,
                message="no checkpoint is measured",
                hint="Set evaluate.every_steps",
            )
        by = self.checkpoint.best_by
        is_scored = self.task == "sequence_classification" or self.evaluate.choices
        if by != "loss" and not is_scored:
            yield Problem(
                path="checkpoint.best_by",
                value=by,
                message="of texts and chats nothing but the loss is measured",
                allowed="loss",
                hint="Answers to choose from get an accuracy: name them in evaluate.choices",
            )

    def _allocation_problems(self, adapter: Adalora) -> Iterator[Problem]:
        steps = self.train.steps
        kept = adapter.settle_steps + adapter.final_steps
        if steps is not None and kept >= steps:
            yield Problem(
                path="adapter.settle_steps",
                value=adapter.settle_steps,
                message=f"with adapter.final_steps = {adapter.final_steps} leaves none of "
                f"train.steps = {steps} to lower ranks in",
                allowed=f"together less than {steps}",
            )

    def _virtual_token_problems(self) -> Iterator[Problem]:
        kind = f"adapter.kind = {self.adapter.kind}"
        if self.task != "causal_lm":
            yield Problem(
                path="task",
                value=self.task,
                message=f"{kind} is for causal_lm: behind virtual tokens a classifier would read "
                "its answer at the wrong place",
                hint="Set adapter.kind: lora",
            )
        if self.data.packing:
            yield Problem(
                path="data.packing",
                value=True,
                message=f"{kind} puts its virtual tokens before each sequence, so only the first "
                "sample of one would have them",
                hint="Set data.packing: false",
            )
        if self.base.gradient_checkpointing and self.adapter.kind == "prefix_tuning":
            yield Problem(
                path="base.gradient_checkpointing",
                value=True,
                message=f"{kind} gives each layer keys and values, which are not kept for "
                "computing it again",
                hint="Set base.gradient_checkpointing: false",
            )

    def _optimizer_problems(self) -> Iterator[Problem]:
        if self.train.optimizer in ("adafactor", "muon") and self.zero.stage != 0:
            yield Problem(
                path="train.optimizer",
                value=self.train.optimizer,
                message=f"needs whole matrices, and zero.stage = {self.zero.stage} hands each "
                "worker a flat part of them",
                hint="Set zero.stage: 0, or train.optimizer: adamw",
            )
        if self.train.optimizer == "adamw_8bit" and self.zero.offload_optimizer:
            yield Problem(
                path="zero.offload_optimizer",
                value=True,
                message="train.optimizer = adamw_8bit would unpack its state in host memory to "
                "step there, and save nothing",
                hint="Set train.optimizer: adamw, or zero.offload_optimizer: false",
            )

    def _workers_per_node(self) -> int | None:
        """If the recipe says so: each worker of a job takes one GPU of its node."""
        jobs = {"slurm": self.slurm.gpus_per_node, "kuberay": self.kuberay.gpus_per_node}
        return jobs.get(self.cluster.kind)

    def _worker_problems(self) -> Iterator[Problem]:
        train = self.train
        if train.micro_batch_size < 1 or not self.cluster.workers:
            return
        useful = max(1, train.global_batch_size // train.micro_batch_size)
        if self.cluster.most_workers > useful:
            yield Problem(
                path="cluster.workers",
                value=list(self.cluster.workers),
                message=f"a step of {train.global_batch_size} sequences has {useful} micro-batches"
                f" of {train.micro_batch_size}; more workers would have nothing to do",
                allowed=f"1 to {useful}",
            )

    def _slurm_problems(self) -> Iterator[Problem]:
        slurm, cluster = self.slurm, self.cluster
        if cluster.kind != "slurm" or slurm.nodes < 1 or not cluster.workers:
            return
        if cluster.most_workers < slurm.nodes:
            yield Problem(
                path="slurm.nodes",
                value=slurm.nodes,
                message=f"{cluster.most_workers} workers leave nodes without any",
                allowed=f"1 to {cluster.most_workers}",
            )
        yield from self._room_problems("slurm", slurm.nodes, slurm.gpus_per_node)

    def _kuberay_problems(self) -> Iterator[Problem]:
        kuberay = self.kuberay
        if self.cluster.kind != "kuberay" or kuberay.nodes < 1 or not self.cluster.workers:
            return
        needs = {
            "image": "an image with shoal installed",
            "claim": "the PersistentVolumeClaim that every pod mounts",
        }
        for name, what in needs.items():
            if getattr(kuberay, name) is None:
                yield Problem(path=f"kuberay.{name}", message="must be given", allowed=what)
        for name in ("path", "cache"):
            folder = getattr(self.storage, name)
            if not is_address(folder) and not folder.startswith(kuberay.mount.rstrip("/") + "/"):
                yield Problem(
                    path=f"storage.{name}",
                    value=folder,
                    message=f"is not below kuberay.mount = {kuberay.mount}, which the pods share",
                    hint=f"Set storage.{name}: {kuberay.mount.rstrip('/')}/…",
                )
        yield from self._room_problems("kuberay", kuberay.nodes, kuberay.gpus_per_node)

    def _room_problems(
        self, section: str, nodes: int, gpus_per_node: int | None
    ) -> Iterator[Problem]:
        workers = self.cluster.most_workers
        room = nodes * (gpus_per_node or workers)
        if workers > room:
            yield Problem(
                path="cluster.workers",
                value=list(self.cluster.workers),
                message=f"{nodes} nodes with {section}.gpus_per_node = {gpus_per_node} have {room} "
                "GPUs, and each worker takes one",
                allowed=f"up to {room}",
            )

    def _causal_problems(self) -> Iterator[Problem]:
        for path, shape in self.data.shapes():
            if shape == "text_pair" and not self.data.prompt:
                yield Problem(
                    path=path,
                    value=shape,
                    message="a causal model is not told what to do with two texts",
                    hint="Set data.prompt, with {text} and {text_pair} in it",
                )
            if shape in ONLY_PREPARED and self.evaluate.choices:
                yield Problem(
                    path="evaluate.choices",
                    value=list(self.evaluate.choices),
                    message=f"{path} = {shape}: has no answers to choose from",
                )

    def _classification_problems(self) -> Iterator[Problem]:
        for path, shape in self.data.shapes():
            if shape not in ("auto", *CLASSIFIED):
                yield Problem(
                    path=path,
                    value=shape,
                    message="task = sequence_classification needs a text and a label in each row",
                    allowed=", ".join(("auto", *CLASSIFIED)),
                )
        if self.data.too_long == "split":
            yield Problem(
                path="data.too_long",
                value="split",
                message="a part of a text need not have the label of the whole",
                allowed="set_aside, truncate, truncate_left",
            )
        if self.data.packing:
            yield Problem(
                path="data.packing",
                value=True,
                message="task = sequence_classification takes one text per sequence",
                allowed="false",
            )
        if self.evaluate.choices:
            yield Problem(
                path="evaluate.choices",
                value=list(self.evaluate.choices),
                message="task = sequence_classification chooses among data.labels",
                hint="Leave evaluate.choices out",
            )
        for name in ("system", "prompt", "chat_template"):
            value = getattr(self.data, name)
            if value:
                yield Problem(
                    path=f"data.{name}",
                    value=value,
                    message="task = sequence_classification has no chat",
                )


def all_problems(recipe: Recipe) -> list[Problem]:
    """Every problem of every section, then those between sections."""
    values = (getattr(recipe, part.name) for part in fields(recipe))
    sections: list[Any] = [value for value in values if is_dataclass(value)]
    found = [problem for section in sections for problem in section.problems()]
    return [*found, *recipe.problems()]
