"""The arithmetic of a plan, by exact numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from launcher.plan.activations import MicroBatch, Precision, kept_bytes, logits_bytes
from launcher.plan.adapter_shape import AdapterShape, adapter_shape
from launcher.plan.base_shape import BaseShape, Tensor, base_shape
from launcher.plan.disk import checkpoint_bytes, kept_checkpoints
from launcher.plan.length import length_of, worker_counts
from launcher.plan.machine import Machine, machine_of, parse_size
from launcher.plan.memory import (
    CUDA_CONTEXT_BYTES,
    LIBRARIES_BYTES,
    RAY_BYTES,
    Batches,
    Memory,
    memory_of,
    node_bytes,
)
from launcher.plan.network import traffic_of
from launcher.plan.optimizer_state import state_of
from launcher.plan.plan import Known, make_plan
from launcher.plan.report import bytes_text
from launcher.plan.rows import Rows
from launcher.plan.verdict import judge
from recipes.adapter import Lora
from recipes.checkpoint import Checkpoint
from recipes.cluster import Cluster
from recipes.errors import RecipeError
from recipes.recipe import Recipe
from recipes.slurm import Slurm
from recipes.zero import Zero
from support import jobs
from trainer.order import order_of

HIDDEN, WIDE, VOCABULARY, LAYERS = 64, 96, 128, 2
CONFIG = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": WIDE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": True,
}
HERE = Machine(
    where="this machine",
    gpu=False,
    memory_bytes=16 * 2**30,
    gpu_memory_bytes=None,
    workers_per_node=2,
    fused_kernels=False,
)
FLOAT32 = Precision(
    element_bytes=4,
    on_gpu=False,
    eager_attention=False,
    fused_loss=False,
    gradient_checkpointing=False,
    dropout=False,
    packing=False,
)
BATCH = MicroBatch(rows=2, tokens_per_row=10, columns=3)


def tensors(hidden: int = HIDDEN, layers: int = LAYERS, stored: int = 2) -> list[Tensor]:
    shapes = {"model.embed_tokens.weight": (VOCABULARY, hidden), "model.norm.weight": (hidden,)}
    for layer in range(layers):
        shapes |= {
            f"model.layers.{layer}.self_attn.q_proj.weight": (hidden, hidden),
            f"model.layers.{layer}.self_attn.k_proj.weight": (hidden // 2, hidden),
            f"model.layers.{layer}.self_attn.v_proj.weight": (hidden // 2, hidden),
            f"model.layers.{layer}.self_attn.o_proj.weight": (hidden, hidden),
            f"model.layers.{layer}.mlp.gate_proj.weight": (WIDE, hidden),
            f"model.layers.{layer}.mlp.down_proj.weight": (hidden, WIDE),
        }
    return [
        Tensor(name=name, shape=shape, stored_bytes=stored * int(np.prod(shape)))
        for name, shape in shapes.items()
    ]


def make_base(stored: int = 2, **config: int) -> BaseShape:
    merged = CONFIG | config
    found = tensors(merged["hidden_size"], merged["num_hidden_layers"], stored)
    return base_shape(merged, found, task="causal_lm", num_labels=2, file_bytes=1000)


BASE = make_base()
# 64×128 + 64, and for each layer 2×64×64 + 2×32×64 + 2×96×64.
PARAMETERS = 8256 + LAYERS * (8192 + 4096 + 12288)


def make_adapter(base: BaseShape = BASE, **changes: object) -> AdapterShape:
    plain = Lora(r=4, alpha=8, targets=["q_proj", "v_proj"])
    return adapter_shape(base, dataclasses.replace(plain, **changes))


ADAPTER = make_adapter()
TRAINED = LAYERS * 4 * ((64 + 64) + (64 + 32))


def make_rows(tokens: list[int], prepared: bool = True) -> Rows:
    counts = np.array(tokens, np.int64)
    return Rows(
        tokens=counts,
        samples=np.ones(len(tokens), np.int64) * 2,
        supervised=np.full(len(tokens), 3, np.int64),
        held_out=0,
        held_out_tokens=np.zeros(0, np.int64),
        held_out_supervised=np.zeros(0, np.int64),
        labels=(),
        prepared=Path("/prepared") if prepared else None,
    )


def recipe(stage: int = 0, offload: bool = False, **train: object) -> Recipe:
    plain = jobs.recipe(zero=Zero(stage=stage, offload_optimizer=offload))
    return dataclasses.replace(
        plain,
        adapter=Lora(r=4, alpha=8, targets=["q_proj", "v_proj"]),
        train=dataclasses.replace(plain.train, **train),
        cluster=Cluster(workers=[2], device="cpu"),
    )


def memory(stage: int, workers: int = 2, precision: Precision = FLOAT32, **more: bool) -> Memory:
    return memory_of(
        recipe(stage, **more),
        BASE,
        ADAPTER,
        Batches(training=BATCH, evaluating=None),
        precision,
        workers=workers,
    )


def test_parameters():
    assert BASE.parameters == PARAMETERS
    assert ADAPTER.parameters == TRAINED
    assert make_adapter(last_layers=1).first_layer == 1


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("train", [{"steps": 7}, {"steps": None, "epochs": 2.5}])
def test_a_run_consumes_what_the_order_says(train: dict, grouped: bool):
    chosen = recipe(**train)
    chosen = dataclasses.replace(
        chosen, data=dataclasses.replace(chosen.data, group_by_length=grouped)
    )
    rows = make_rows([5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    found = length_of(chosen, rows)
    order = order_of(chosen, rows.tokens)
    assert (order.num_rows, order.lengths is not None) == (11, grouped)
    seen = [row for step in range(found.steps) for row in order.rows(step)]
    assert found.steps == (7 if train["steps"] else 4)  # 2.5 × 11 rows in batches of 8
    assert found.tokens == sum(rows.tokens[row] for row in seen)
    assert found.samples == 2 * len(seen)
    assert found.epochs == pytest.approx(len(seen) / 11)
    widest = max(
        max(rows.tokens[row] for row in order.micro_batch(step, number))
        for step in range(found.steps)
        for number in range(order.num_micro_batches)
    )
    assert found.widest_tokens == widest
    assert found.widest_columns == 2 * 3  # micro-batches of 2 rows with 3 tokens to learn


def test_worker_counts_are_the_fewest_for_each_accumulation():
    found = worker_counts(recipe(global_batch_size=12, micro_batch_size=2))
    assert [(count.workers, count.accumulation, count.idle) for count in found] == [
        (1, 6, 0),
        (2, 3, 0),
        (3, 2, 0),
        (6, 1, 0),
    ]
    uneven = worker_counts(recipe(global_batch_size=5, micro_batch_size=1))
    assert [(count.workers, count.accumulation, count.idle) for count in uneven] == [
        (1, 5, 0),
        (2, 3, 1),
        (3, 2, 1),
        (5, 1, 0),
    ]


def test_what_a_layer_keeps():
    # Norms, q k v and output, the gated MLP, q's and v's common input, what their A made.
    per_token = 2 * 64 * 4 + (2 * 64 + 2 * 32) * 4 + 4 * 4 + 3 * 96 * 4 + 64 * 4 + 2 * 4 * 4
    passing = (3 * 96 + 2 * 64) * 4
    kept = kept_bytes(BASE.widths, ADAPTER, BATCH, FLOAT32)
    assert kept == 20 * (LAYERS * per_token + passing)
    upper = make_adapter(last_layers=1)
    assert kept_bytes(BASE.widths, upper, BATCH, FLOAT32) == 20 * (per_token + passing)
    less = dataclasses.replace(FLOAT32, gradient_checkpointing=True)
    again = kept_bytes(BASE.widths, ADAPTER, BATCH, less)
    assert again == 20 * (LAYERS * 64 * 4 + per_token + passing)


def test_logits():
    positions = 2 * 3 * VOCABULARY
    assert logits_bytes(BASE.widths, BATCH, FLOAT32, learns=True) == positions * 12
    assert logits_bytes(BASE.widths, BATCH, FLOAT32, learns=False) == positions * 8
    half = dataclasses.replace(FLOAT32, element_bytes=2)
    assert logits_bytes(BASE.widths, BATCH, half, learns=True) == positions * 14
    fused = dataclasses.replace(half, fused_loss=True)
    assert logits_bytes(BASE.widths, BATCH, fused, learns=True) == 0
    assert logits_bytes(BASE.widths, BATCH, fused, learns=False) == positions * 10


@pytest.mark.parametrize(
    ("stage", "gradients", "optimizer"),
    [(0, 8, 8), (1, 8, 6), (2, 6, 6), (3, 6, 6)],  # bytes for each trained element
)
def test_what_each_stage_divides(stage: int, gradients: int, optimizer: int):
    found = memory(stage)
    assert found.gradients == gradients * TRAINED
    assert found.optimizer == optimizer * TRAINED
    if stage < 3:
        assert found.parameters == 4 * (PARAMETERS + TRAINED)
        assert found.gathered == 0


def test_stage_3_divides_what_is_above_the_threshold():
    # Everything is smaller than 100,000 elements, so it is whole on each rank, and half besides.
    found = memory(3)
    assert found.parameters == 4 * (PARAMETERS + TRAINED) * 3 // 2
    assert found.gathered == 0
    large = make_base(hidden_size=1024)
    linear = [t for t in large.tensors if t.elements > 100_000]
    found = memory_of(
        recipe(3),
        large,
        make_adapter(large),
        Batches(training=BATCH, evaluating=None),
        FLOAT32,
        workers=2,
    )
    divided = sum(t.elements for t in linear)
    assert found.gathered == 4 * 3 * divided  # whole, in a flat buffer, and in gloo's
    alone = memory(3, workers=1)
    assert alone.parameters == 4 * (PARAMETERS + TRAINED)


def test_on_a_gpu_the_bucket_is_there_whole_and_offload_moves_the_optimizer():
    gpu = dataclasses.replace(FLOAT32, on_gpu=True, element_bytes=2)
    found = memory(2, precision=gpu, offload=True)
    assert found.libraries == CUDA_CONTEXT_BYTES
    assert found.parameters == 2 * PARAMETERS + 4 * TRAINED
    assert found.gradients == 4 * 500_000_000 + 2 * TRAINED
    assert found.optimizer == 0
    assert found.offloaded == 6 * TRAINED
    assert found.holes == 0
    assert memory(2, precision=gpu).optimizer == 6 * TRAINED
    # Without a GPU it is the same memory wherever it lies.
    assert memory(2, offload=True).training == memory(2).training


def test_a_node_has_room_for_the_process_that_opens_the_first_checkpoint():
    proven = dataclasses.replace(recipe(), checkpoint=Checkpoint())
    found = memory_of(
        proven, BASE, ADAPTER, Batches(training=BATCH, evaluating=None), FLOAT32, workers=2
    )
    assert found.proving == LIBRARIES_BYTES + 4 * PARAMETERS + 4 * TRAINED
    assert node_bytes(found, 2) == 2 * found.training + found.proving + RAY_BYTES


LARGE = make_base(hidden_size=1024)


def options(workers: int = 2, *, on_gpu: bool = True, **zero: object) -> Memory:
    """Under stage 3, with every parameter divided but what DeepSpeed keeps whole."""
    return memory_of(
        dataclasses.replace(recipe(), zero=Zero(stage=3, **zero)),
        LARGE,
        make_adapter(LARGE),
        Batches(training=BATCH, evaluating=None),
        dataclasses.replace(FLOAT32, on_gpu=on_gpu),
        workers=workers,
    )


def test_offloaded_parameters_lie_in_host_memory_beside_a_gpu():
    plain, moved = options(), options(offload_parameters=True)
    parts = 4 * sum(t.elements for t in LARGE.tensors if t.elements > 100_000) // 2
    assert plain.parameters - moved.parameters == moved.offloaded == parts > 0
    assert moved.host_at_rest == plain.host_at_rest + parts
    assert moved.gathered == plain.gathered
    both = options(offload_parameters=True, offload_optimizer=True)
    assert both.offloaded == parts + plain.optimizer and both.optimizer == 0
    # One worker gathers nothing, but has to bring what it needs.
    assert options(1).gathered == 0
    assert options(1, offload_parameters=True).gathered == 2 * parts
    # Without a GPU it is the same memory.
    assert options(on_gpu=False, offload_parameters=True).training == options(on_gpu=False).training


def test_hpz_is_a_second_copy_among_fewer():
    divided = 4 * sum(t.elements for t in LARGE.tensors if t.elements > 100_000)
    plain, twice = options(8), options(8, hpz_size=2)
    assert twice.parameters - plain.parameters == divided // 2 > 0
    in_host = options(8, hpz_size=2, offload_parameters=True)
    assert in_host.offloaded == divided // 8 + divided // 2


def test_loading_counts_the_mapped_files_once_for_a_node():
    found = memory(0)
    assert found.loading == LIBRARIES_BYTES + 4 * PARAMETERS + 1000
    assert node_bytes(found, 2) == 2 * found.training + RAY_BYTES
    stored_alike = memory_of(
        recipe(),
        make_base(stored=4),
        ADAPTER,
        Batches(training=BATCH, evaluating=None),
        FLOAT32,
        workers=2,
    )
    assert stored_alike.loading == LIBRARIES_BYTES + 1000  # stays mapped, is not copied


def test_measuring_may_take_more_than_training():
    measured = MicroBatch(rows=8, tokens_per_row=100, columns=100)
    found = memory_of(
        recipe(),
        BASE,
        ADAPTER,
        Batches(training=BATCH, evaluating=measured),
        FLOAT32,
        workers=2,
    )
    passing = 800 * (3 * 96 + 4 * 64 + 2 * 64) * 4
    assert found.evaluating == passing + 800 * VOCABULARY * 8
    plain = memory(0)
    assert found.training - plain.training == found.evaluating - plain.activations - plain.logits


def test_optimizer_state():
    matrix, vector = (
        Tensor(name="a.lora_A", shape=(4, 64), stored_bytes=1024),
        Tensor(name="a.lora_magnitude_vector", shape=(64,), stored_bytes=256),
    )
    assert state_of("adamw", matrix).bytes == 8 * 256
    assert state_of("adamw_8bit", matrix).bytes == 2 * (256 + 8)
    assert state_of("adafactor", matrix).bytes == 4 * (4 + 64)
    assert state_of("adafactor", vector).bytes == 4 * 64
    assert state_of("muon", matrix).bytes == 4 * 256
    assert state_of("muon", vector).bytes == 8 * 64


def test_checkpoints_kept():
    assert kept_checkpoints(Checkpoint(keep=2), 100) == 2
    assert kept_checkpoints(Checkpoint(keep=2, keep_every_steps=30, keep_best=1), 100) == 6
    assert kept_checkpoints(Checkpoint(keep=2, keep_every_steps=30), None) == 2
    assert checkpoint_bytes(ADAPTER, "adamw") - checkpoint_bytes(ADAPTER, "muon") > 4 * TRAINED


@pytest.mark.parametrize(
    ("stage", "gradients", "parameters"),
    [
        (0, 2 * 4 * TRAINED * 3 // 4, 0),
        (1, 4 * TRAINED * 3 // 4, 4 * TRAINED * 3 // 4),
        (2, 2 * 4 * TRAINED * 3 // 4, 4 * TRAINED * 3 // 4),
        (3, 2 * 4 * TRAINED * 3 // 4, 2 * 4 * PARAMETERS * 3 // 4),
    ],
)
def test_traffic_of_four_workers_that_accumulate_twice(stage: int, gradients: int, parameters: int):
    found = traffic_of(recipe(stage), BASE, ADAPTER, element_bytes=4, workers=4, accumulation=2)
    assert (found.gradients_bytes, found.parameters_bytes) == (gradients, parameters)


def known(machine: Machine, base: BaseShape | None = BASE, room: int | None = 2**40) -> Known:
    rows = make_rows([40] * 16)
    return Known(rows=rows, base=base, machine=machine, room_bytes=room)


def verdict_with(memory_bytes: int | None, base: BaseShape = BASE, room: int | None = 2**40):
    chosen = recipe(global_batch_size=16, micro_batch_size=8)
    found = known(dataclasses.replace(HERE, memory_bytes=memory_bytes), base, room)
    return judge(chosen, found, make_plan(chosen, found))


def test_the_verdict_names_the_nearest_change_that_fits():
    wide = make_base(vocab_size=400_000)
    needed = verdict_with(None, wide).checks[0].needed_bytes
    assert verdict_with(None, wide).word == "not known"
    assert verdict_with(2 * needed, wide).word == "fits"
    assert verdict_with(int(1.05 * needed), wide).word == "tight"
    close = verdict_with(int(0.99 * needed), wide)
    assert (close.word, close.change) == ("does not fit", ("train.micro_batch_size=4",))
    assert verdict_with(2**20, wide).change == ()
    full = verdict_with(2 * needed, wide, room=1000)
    assert (full.word, full.change) == ("does not fit", ())


def test_a_base_that_only_fits_divided_is_told_stage_3():
    gpu = dataclasses.replace(HERE, gpu=True, workers_per_node=8)
    chosen = dataclasses.replace(
        recipe(global_batch_size=16, micro_batch_size=2),
        cluster=Cluster(workers=[8], device="gpu"),
    )
    huge = dataclasses.replace(
        BASE,
        tensors=tuple(
            Tensor(name=f"model.layers.0.e{n}.weight", shape=(2**30,), stored_bytes=2**31)
            for n in range(64)
        )
        + BASE.tensors,
    )
    found = known(dataclasses.replace(gpu, gpu_memory_bytes=80 * 10**9, memory_bytes=2**42), huge)
    judged = judge(chosen, found, make_plan(chosen, found))
    assert judged.word == "does not fit"
    assert judged.change == ("zero.stage=3",)


def test_without_a_base_the_rest_is_planned():
    chosen = recipe()
    plan = make_plan(chosen, known(HERE, base=None))
    assert plan.memory is None and plan.disk is None and plan.traffic is None
    assert plan.length is not None and plan.length.steps == 6
    assert judge(chosen, known(HERE, base=None), plan).word == "not known"


def test_before_rows_are_counted_a_sequence_is_as_long_as_it_may_be():
    chosen = recipe()
    found = dataclasses.replace(known(HERE), rows=make_rows([40] * 16, prepared=False))
    plan = make_plan(chosen, found)
    assert plan.is_estimated
    limit = chosen.data.sequence_length
    assert plan.batch == MicroBatch(rows=2, tokens_per_row=limit, columns=limit)
    assert make_plan(chosen, known(HERE)).batch.tokens_per_row == 40


def test_sizes_are_read_and_written():
    assert parse_size("80GiB", "--gpu-memory") == 80 * 2**30
    assert parse_size("1.5 TB", "--gpu-memory") == 1_500_000_000_000
    assert parse_size(None, "--gpu-memory") is None
    for wrong in ("80", "big", "0GiB", "-1GiB"):
        with pytest.raises(RecipeError, match="--gpu-memory"):
            parse_size(wrong, "--gpu-memory")
    assert [bytes_text(n) for n in (5, 12_400, 3_722_000, 2**30, 150 * 2**30)] == [
        "5 B",
        "12.1 KiB",
        "3.55 MiB",
        "1.00 GiB",
        "150 GiB",
    ]


def test_machines_that_are_told_of():
    def of(cluster: Cluster, slurm: Slurm | None = None) -> Recipe:
        return dataclasses.replace(recipe(), cluster=cluster, slurm=slurm or Slurm())

    elsewhere = machine_of(of(Cluster(kind="ray")))
    assert (elsewhere.where, elsewhere.gpu, elsewhere.memory_bytes) == ("a node", True, None)
    told = machine_of(
        of(Cluster(kind="ray")), memory_bytes=2**40, gpu_memory_bytes=2**36, gpus_per_node=8
    )
    assert (told.memory_bytes, told.gpu_memory_bytes, told.workers_per_node) == (2**40, 2**36, 8)
    job = machine_of(of(Cluster(kind="slurm", workers=[8]), Slurm(nodes=4, memory="200G")))
    assert (job.where, job.workers_per_node, job.memory_bytes) == ("a node", 2, 200 * 2**30)
    all_there_is = machine_of(of(Cluster(kind="slurm"), Slurm(memory="0")))
    assert all_there_is.memory_bytes is None
    here = machine_of(of(Cluster(device="cpu", workers=[3])))
    assert (here.where, here.gpu, here.workers_per_node) == ("this machine", False, 3)
    assert here.memory_bytes and here.memory_bytes > 2**28
