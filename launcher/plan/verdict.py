"""Whether a run fits the memory and the disk there is, and the nearest change if it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from launcher.plan.machine import Machine
from launcher.plan.memory import node_bytes
from launcher.plan.plan import Known, Plan, make_plan
from recipes.recipe import Recipe
from recipes.train import divisors

# Predictions were within 15 % of what was measured; what is nearer to the limit is called tight.
_TIGHT = 0.85
_SHORTEST_SEQUENCE = 128

Word = Literal["fits", "tight", "does not fit", "not known"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that is needed, against what there is."""

    what: str
    needed_bytes: int
    there_bytes: int | None

    @property
    def word(self) -> Word:
        if self.there_bytes is None:
            return "not known"
        if self.needed_bytes > self.there_bytes:
            return "does not fit"
        return "tight" if self.needed_bytes > _TIGHT * self.there_bytes else "fits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    word: Word
    checks: tuple[Check, ...]
    change: tuple[str, ...]
    """Overrides with which it would fit; empty when it fits, or when none of those tried does."""


def judge(recipe: Recipe, known: Known, plan: Plan) -> Verdict:
    """The verdict on a plan, which was made of the recipe."""
    checks = checks_of(plan, known.machine)
    word = _worst(checks)
    change: tuple[str, ...] = ()
    if any(check.word == "does not fit" and check.what != "disk" for check in checks):
        change = _nearest_change(recipe, known, plan.workers.workers)
    return Verdict(word=word, checks=checks, change=change)


def checks_of(plan: Plan, machine: Machine) -> tuple[Check, ...]:
    """What is compared with what there is."""
    checks = []
    if plan.memory is not None:
        ranks = machine.workers_per_node
        ranks = plan.workers.workers if ranks is None else min(ranks, plan.workers.workers)
        if plan.memory.on_gpu:
            checks.append(
                Check(
                    what="a GPU",
                    needed_bytes=plan.memory.device,
                    there_bytes=machine.gpu_memory_bytes,
                )
            )
        checks.append(
            Check(
                what=f"a node of {ranks} workers" if ranks > 1 else "a node of 1 worker",
                needed_bytes=node_bytes(plan.memory, ranks),
                there_bytes=machine.memory_bytes,
            )
        )
    if plan.disk is not None:
        checks.append(
            Check(
                what="disk", needed_bytes=plan.disk.needed_bytes, there_bytes=plan.disk.room_bytes
            )
        )
    return tuple(checks)


def _worst(checks: tuple[Check, ...]) -> Word:
    words = [check.word for check in checks]
    order: tuple[Word, ...] = ("does not fit", "not known", "tight", "fits")
    return next((word for word in order if word in words), "not known")


def _nearest_change(recipe: Recipe, known: Known, workers: int) -> tuple[str, ...]:
    for overrides, changed in _changes(recipe):
        plan = make_plan(changed, known, workers=workers)
        if all(
            check.word != "does not fit"
            for check in checks_of(plan, known.machine)
            if check.what != "disk"
        ):
            return overrides
    return ()


def _changes(recipe: Recipe) -> Iterator[tuple[tuple[str, ...], Recipe]]:
    """Changes from the nearest to the farthest: those that leave the mathematics as it is, one by
    one and then together, and only then shorter sequences."""
    singles: list[dict[str, Any]] = [
        {"train.micro_batch_size": size} for size in _smaller(recipe.train.micro_batch_size, recipe)
    ]
    singles += [
        {"evaluate.batch_size": size} for size in (4, 2, 1) if size < recipe.evaluate.batch_size
    ]
    if not recipe.base.gradient_checkpointing:
        singles.append({"base.gradient_checkpointing": True})
    stages: list[dict[str, Any]] = []
    if recipe.train.optimizer in ("adamw", "adamw_8bit"):
        stages = [{"zero.stage": stage} for stage in range(recipe.zero.stage + 1, 4)]
        if recipe.train.optimizer == "adamw" and not recipe.zero.offload_optimizer:
            offload = {"zero.offload_optimizer": True}
            stages += [
                {"zero.stage": stage} | offload if stage != recipe.zero.stage else offload
                for stage in range(max(1, recipe.zero.stage), 4)
            ]
    least: dict[str, Any] = {}
    for name, value, now in (
        ("train.micro_batch_size", 1, recipe.train.micro_batch_size),
        ("evaluate.batch_size", 1, recipe.evaluate.batch_size),
        ("base.gradient_checkpointing", True, recipe.base.gradient_checkpointing),
    ):
        if value != now:
            least[name] = value
    together = [least, *(least | stage for stage in stages)] if least else []
    everything = least | (stages[-1] if stages else {})
    shorter = [
        everything | {"data.sequence_length": length}
        for length in _halves(recipe.data.sequence_length)
    ]
    for change in [*singles, *stages, *together, *shorter]:
        yield (
            tuple(f"{path}={_yaml(value)}" for path, value in change.items()),
            _with(recipe, change),
        )


def _smaller(micro: int, recipe: Recipe) -> list[int]:
    sizes = [size for size in divisors(recipe.train.global_batch_size) if size < micro]
    return sizes[::-1]


def _halves(length: int) -> Iterator[int]:
    while length // 2 >= _SHORTEST_SEQUENCE:
        length //= 2
        yield length


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _with(recipe: Recipe, change: dict[str, Any]) -> Recipe:
    for path, value in change.items():
        section, _, name = path.partition(".")
        part = dataclasses.replace(getattr(recipe, section), **{name: value})
        recipe = dataclasses.replace(recipe, **{section: part})
    return recipe
