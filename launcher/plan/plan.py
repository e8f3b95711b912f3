"""A plan: everything that can be told of a run before it starts, as one frozen value."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from launcher.plan.activations import MicroBatch, Precision
from launcher.plan.adapter_shape import adapter_shape
from launcher.plan.adapter_tensors import Adapted
from launcher.plan.base_shape import BaseShape
from launcher.plan.disk import Disk, disk_of
from launcher.plan.length import Length, Workers, length_of, worker_counts, workers_of
from launcher.plan.machine import Machine, element_bytes
from launcher.plan.memory import Batches, Memory, memory_of
from launcher.plan.network import Traffic, traffic_of
from launcher.plan.rows import Rows
from recipes.adapter import Lora, OtherPeft, Vera
from recipes.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What was found out for a recipe. What could not be is None, with the reason."""

    rows: Rows | None
    base: BaseShape | None
    machine: Machine
    room_bytes: int | None
    missing: tuple[str, ...] = ()
    """Why rows or base are not known, each in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is predicted of a run; a part whose grounds are not known is None."""

    workers: Workers
    worker_counts: tuple[Workers, ...]
    length: Length | None
    is_estimated: bool
    """Whether the rows are estimated from the sizes of files."""
    base_parameters: int | None
    trained_parameters: int | None
    adapted: Mapping[str, int]
    """Modules that the adapter changes, by the last part of their names: how many of each."""
    element_bytes: int
    batch: MicroBatch
    memory: Memory | None
    disk: Disk | None
    traffic: Traffic | None
    missing: tuple[str, ...]


def make_plan(recipe: Recipe, known: Known, *, workers: int | None = None) -> Plan:
    """The plan of a recipe on `workers`, by default the most it allows.

    Raises `AdapterError` when the adapter does not fit the base.
    """
    number = workers or recipe.cluster.most_workers
    length = length_of(recipe, known.rows) if known.rows is not None and len(known.rows) else None
    crew = workers_of(recipe, number)
    batches = _batches(recipe, known.rows, length)
    width = element_bytes(recipe.base, known.machine)
    base = known.base
    adapter, missing = None, list(known.missing)
    if isinstance(recipe.adapter, OtherPeft):
        missing.append(
            f"adapter.method = {recipe.adapter.method}: what it trains is known to PEFT alone, "
            "which a plan does without"
        )
    elif base is not None:
        adapter = adapter_shape(base, recipe.adapter, recipe.base.new_tokens)
        if recipe.data.chat_template is not None:  # lies in a tokenizer beside the adapter
            adapter = replace(adapter, text_bytes=base.tokenizer_bytes)
    memory = disk = traffic = None
    if base is not None and adapter is not None:
        memory = memory_of(
            recipe, base, adapter, batches, _precision(recipe, known.machine), workers=number
        )
        steps = length.steps if length is not None else recipe.train.steps
        disk = disk_of(recipe, adapter, steps=steps, room_bytes=known.room_bytes)
        traffic = traffic_of(
            recipe,
            base,
            adapter,
            element_bytes=width,
            workers=number,
            accumulation=crew.accumulation,
        )
    return Plan(
        workers=crew,
        worker_counts=worker_counts(recipe),
        length=length,
        is_estimated=known.rows is not None and known.rows.prepared is None,
        base_parameters=base.parameters if base is not None else None,
        trained_parameters=adapter.parameters if adapter is not None else None,
        adapted=_names(adapter.adapted) if adapter is not None else {},
        element_bytes=width,
        batch=batches.training,
        memory=memory,
        disk=disk,
        traffic=traffic,
        missing=tuple(missing),
    )


def _names(adapted: Iterable[Adapted]) -> dict[str, int]:
    return dict(Counter(module.name.rpartition(".")[2] for module in adapted))


def _precision(recipe: Recipe, machine: Machine) -> Precision:
    return Precision(
        element_bytes=element_bytes(recipe.base, machine),
        on_gpu=machine.gpu,
        eager_attention=recipe.base.attention == "eager",
        fused_loss=machine.fused_kernels
        and recipe.task == "causal_lm"
        and recipe.base.kernels == "auto",
        gradient_checkpointing=recipe.base.gradient_checkpointing,
        dropout=isinstance(recipe.adapter, Lora | Vera) and recipe.adapter.dropout > 0,
        packing=recipe.data.packing,
        quantization=recipe.base.quantization,
        double_quantization=recipe.base.double_quantization,
    )


def _batches(recipe: Recipe, rows: Rows | None, length: Length | None) -> Batches:
    """The largest batches. Before the rows are counted a sequence may be as long as is allowed, and
    every token of it may be learnt from."""
    longest = recipe.data.sequence_length
    micro = recipe.train.micro_batch_size
    counted = rows is not None and rows.prepared is not None
    if counted and length is not None:
        training = MicroBatch(
            rows=micro, tokens_per_row=length.widest_tokens, columns=length.widest_columns
        )
    else:
        training = MicroBatch(rows=micro, tokens_per_row=longest, columns=longest)
    evaluates = recipe.evaluate.before or recipe.evaluate.after or recipe.evaluate.every_steps
    if not evaluates or (rows is not None and not rows.held_out):
        return Batches(training=training, evaluating=None)
    evaluating = MicroBatch(
        rows=recipe.evaluate.batch_size, tokens_per_row=longest, columns=longest
    )
    if counted and rows is not None:
        evaluating = _largest_evaluated(rows, recipe.evaluate.batch_size)
    return Batches(training=training, evaluating=evaluating)


def _largest_evaluated(rows: Rows, size: int) -> MicroBatch:
    """Held-out rows are measured in their order, so many at a time."""
    starts = np.arange(0, len(rows.held_out_tokens), size)
    widths = np.maximum.reduceat(rows.held_out_tokens, starts)
    learnt = np.minimum(np.add.reduceat(rows.held_out_supervised, starts), widths)
    return MicroBatch(rows=size, tokens_per_row=int(widths.max()), columns=int(learnt.max()))


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan as JSON takes it, with the sums that its parts come to."""
    made: dict[str, Any] = dataclasses.asdict(plan)
    if plan.memory is not None:
        made["memory"] |= {
            "training": plan.memory.training,
            "device": plan.memory.device,
            "host": plan.memory.host,
        }
        made["memory"] = _bytes_in_names(made["memory"])
    if plan.disk is not None:
        made["disk"]["needed_bytes"] = plan.disk.needed_bytes
    if plan.traffic is not None:
        made["traffic"]["total_bytes"] = plan.traffic.total_bytes
    return made


def _bytes_in_names(terms: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name if isinstance(value, bool) else f"{name}_bytes": value for name, value in terms.items()
    }
