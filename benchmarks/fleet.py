"""A run of a thousand workers as its control plane sees it: nodes, ranks and files that are made
up, in the shapes of real ones. No process is started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from launcher.driving.faults import Whereabouts
from launcher.plan.base_shape import BaseShape, Tensor, base_shape
from launcher.plan.machine import Machine
from launcher.plan.plan import Known
from launcher.plan.rows import Rows
from recipes.adapter import Lora
from recipes.base import Base
from recipes.checkpoint import Checkpoint
from recipes.cluster import Cluster
from recipes.data import Data, Source
from recipes.recipe import Recipe
from recipes.slurm import Slurm
from recipes.train import Train
from recipes.zero import Zero
from trainer.ledger import Entry, Ledger
from trainer.order import Order
from trainer.pulse import Pulse

WORKERS = 1024
WORKERS_PER_NODE = 8
ROWS_PER_STEP = 4 * WORKERS
EPOCH_ROWS = 1_000_000


def recipe(workers: int = WORKERS) -> Recipe:
    """LoRA on a base of 70 billion parameters, sharded over all workers."""
    return Recipe(
        name="fleet",
        base=Base(source="org/70b", dtype="bfloat16", gradient_checkpointing=True),
        data=Data(train=[Source(path="/shared/train.jsonl")], sequence_length=4096, packing=True),
        adapter=Lora(r=16, targets=["all-linear"]),
        train=Train(epochs=2, global_batch_size=4 * workers, micro_batch_size=1),
        zero=Zero(stage=3),
        cluster=Cluster(kind="slurm", workers=[workers // 2, workers], device="gpu"),
        slurm=Slurm(nodes=workers // WORKERS_PER_NODE, gpus_per_node=WORKERS_PER_NODE),
        checkpoint=Checkpoint(every_steps=50),
    )


def known() -> Known:
    """What is found out for the recipe: rows that were counted, shapes that were read."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(2048, 4097, EPOCH_ROWS)
    return Known(
        rows=Rows(
            tokens=tokens,
            samples=generator.integers(1, 9, EPOCH_ROWS),
            supervised=tokens // 2,
            held_out=0,
            held_out_tokens=np.zeros(0, np.int64),
            held_out_supervised=np.zeros(0, np.int64),
            labels=(),
            prepared=Path("/shared/cache/prepared/key"),
        ),
        base=_base(),
        machine=Machine(
            where="a node",
            gpu=True,
            memory_bytes=2**40,
            gpu_memory_bytes=80 * 2**30,
            workers_per_node=WORKERS_PER_NODE,
            fused_kernels=True,
        ),
        room_bytes=10 * 2**40,
    )


def _base() -> BaseShape:
    hidden, wide, vocabulary, layers, kv_width = 8192, 28672, 128256, 80, 1024
    config = {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
    }
    shapes = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "lm_head.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    for number in range(layers):
        layer = f"model.layers.{number}"
        shapes |= {
            f"{layer}.self_attn.q_proj.weight": (hidden, hidden),
            f"{layer}.self_attn.k_proj.weight": (kv_width, hidden),
            f"{layer}.self_attn.v_proj.weight": (kv_width, hidden),
            f"{layer}.self_attn.o_proj.weight": (hidden, hidden),
            f"{layer}.mlp.gate_proj.weight": (wide, hidden),
            f"{layer}.mlp.up_proj.weight": (wide, hidden),
            f"{layer}.mlp.down_proj.weight": (hidden, wide),
            f"{layer}.input_layernorm.weight": (hidden,),
            f"{layer}.post_attention_layernorm.weight": (hidden,),
        }
    stored = [
        Tensor(name=name, shape=shape, stored_bytes=2 * int(np.prod(shape)))
        for name, shape in shapes.items()
    ]
    file_bytes = sum(tensor.stored_bytes for tensor in stored)
    return base_shape(config, stored, task="causal_lm", num_labels=2, file_bytes=file_bytes)


def node_ids(count: int) -> list[str]:
    """Names of nodes as long as Ray's."""
    return [f"{number:056x}" for number in range(count)]


def whereabouts(workers: int = WORKERS) -> dict[int, Whereabouts]:
    """Where each rank runs."""
    nodes = node_ids(-(-workers // WORKERS_PER_NODE))
    return {
        rank: Whereabouts(
            node=nodes[rank // WORKERS_PER_NODE],
            host=f"node{rank // WORKERS_PER_NODE:04d}",
            pid=10_000 + rank,
        )
        for rank in range(workers)
    }


def pulses(workers: int = WORKERS) -> dict[int, Pulse]:
    """What each rank tells once a second, in the middle of a step."""
    return {rank: Pulse(phase="backward", step=100, marks=1605) for rank in range(workers)}


def write_ledger(folder: Path, *, steps: int, rows_per_step: int, attempts: int) -> None:
    """A ledger of a run that fell back by a quarter of an attempt's steps at each new attempt."""
    order = Order(num_rows=EPOCH_ROWS, seed=1, global_batch_size=rows_per_step, micro_batch_size=1)
    each = steps // attempts
    for attempt in range(attempts):
        first = max(0, attempt * each - each // 4)
        ledger = Ledger(folder, resume_after=first, num_rows=EPOCH_ROWS)
        for step in range(first, (attempt + 1) * each):
            rows = order.rows(step)
            ids = [[4 * row, 4 * row + 1] for row in rows]
            ledger.append(Entry(step=step + 1, batch=step, rows=rows, samples=ids))


def write_runs(storage: Path, count: int, *, steps: int) -> None:
    """Folders of runs of `WORKERS` ranks; every other one is a job of SLURM."""
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    peaks = [{"host_bytes": 10**10, "device_bytes": 7 * 10**10}] * WORKERS
    metrics = "".join(
        json.dumps({"step": step, "loss": 2.0, "grad_norm": 1.0, "tokens": 10**6, "seconds": 5.0})
        + "\n"
        for step in range(1, steps + 1)
    )
    events = "".join(
        json.dumps({"time": (begun + timedelta(seconds=n)).isoformat(), **event}) + "\n"
        for n, event in enumerate(_events(steps, peaks))
    )
    for number in range(count):
        folder = storage / f"run-{number:04d}"
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(f"name: run-{number:04d}\n")
        (folder / "metrics.jsonl").write_text(metrics)
        (folder / "events.jsonl").write_text(events)
        if number % 2:
            (folder / "job.json").write_text(json.dumps({"kind": "slurm", "id": str(number)}))


def _events(steps: int, peaks: list[dict[str, int]]) -> Iterator[dict[str, object]]:
    yield {"event": "submitted", "kind": "slurm"}
    yield {"event": "started"}
    for step in range(50, steps + 1, 50):
        yield {"event": "checkpoint", "step": step, "bytes": 10**9, "write_s": 3.0}
    yield {"event": "memory", "ranks": peaks}
    yield {"event": "finished"}
