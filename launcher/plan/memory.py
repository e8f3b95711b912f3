"""Memory of one rank and of one node, term by term, by ZeRO stage and offload.

Where the terms come from: ZeRO (Rajbhandari et al., arXiv:1910.02054, section 5) for what a stage
divides, DeepSpeed 0.19's sources for its buffers, and this package's own tests, which compare the
sum with what ranks were measured to take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from launcher.plan.activations import (
    MicroBatch,
    Precision,
    holes_bytes,
    kept_bytes,
    logits_bytes,
    passing_bytes,
)
from launcher.plan.adapter_shape import AdapterShape
from launcher.plan.base_shape import BaseShape
from launcher.plan.optimizer_state import state_bytes
from launcher.plan.stored import Stored, stored
from recipes.recipe import Recipe
from trainer.zero_config import zero_config

MIB = 2**20

# Of a rank before it has loaded anything: Python, torch, Ray, transformers, DeepSpeed and PEFT of
# constraints.txt, on x86-64 Linux without CUDA. Measured as the resident memory of Ray Train's
# workers: 440 MiB of their own, and 190 MiB of libraries mapped from files.
LIBRARIES_BYTES = 630 * MIB
# The command, Ray's own processes and its object store, on a node with a driver.
RAY_BYTES = 1536 * MIB
# A tokenizer in memory against its tokenizer.json: 50 MiB for 3.5 MB of SmolLM2's 49 thousand
# pieces, 250 MiB for 17 MB of XLM-R's 250 thousand.
_TOKENIZER_TIMES = 15
# Kernels, cuBLAS's and NCCL's workspaces: what a process takes of a GPU before the first tensor.
# torch.cuda.max_memory_allocated does not count it. Not measured here.
CUDA_CONTEXT_BYTES = 1024 * MIB
# Torch's build for CUDA maps more libraries.
CUDA_LIBRARIES_BYTES = 3 * 1024 * MIB

# For each number of a matrix while it is packed: as it was read, in float32, four steps between
# (bitsandbytes/backends/default/ops.py, quantize_4bit), and the bytes that come of it.
_PACKING_BYTES = 24

# DeepSpeed's defaults (deepspeed/runtime/zero/config.py), for what trainer/zero_config leaves out.
_DEFAULTS = {
    "reduce_bucket_size": 500_000_000,
    "stage3_max_live_parameters": 1_000_000_000,
    "stage3_prefetch_bucket_size": 50_000_000,
    "stage3_param_persistence_threshold": 100_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one rank. A term that lies elsewhere, as the optimizer's does with offload, is in
    `offloaded`."""

    libraries: int
    parameters: int
    gathered: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    holes: int
    """Freed, and not used again by the allocator."""
    evaluating: int
    """What measuring takes in place of activations and logits."""
    loading: int
    """What the rank takes in host memory while the base is loaded, libraries included."""
    mapped: int
    """The part of `loading` that is files mapped into memory, which ranks of a node share."""
    offloaded: int
    """The optimizer's masters and state, or parts of the base, in host memory."""
    proving: int
    """Of a second process beside rank 0, which opens the first checkpoint; mapped files left out,
    as they can be dropped."""
    host_at_rest: int
    """Host memory while training, of a rank that computes on a GPU."""
    on_gpu: bool

    @property
    def training(self) -> int:
        return (
            self.libraries
            + self.parameters
            + self.gathered
            + self.gradients
            + self.optimizer
            + self.holes
            + max(self.activations + self.logits, self.evaluating)
        )

    @property
    def device(self) -> int:
        """The most it takes of its GPU, or of host memory without one."""
        return self.training if self.on_gpu else max(self.training, self.loading)

    @property
    def host(self) -> int:
        """The most it takes of its node's memory."""
        return max(self.host_at_rest, self.loading) if self.on_gpu else self.device


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """The largest micro-batch that is trained on, and the largest that is measured on, if any."""

    training: MicroBatch
    evaluating: MicroBatch | None


def memory_of(
    recipe: Recipe,
    base: BaseShape,
    adapter: AdapterShape,
    batches: Batches,
    precision: Precision,
    *,
    workers: int,
) -> Memory:
    """The memory of a rank of `workers`, of those that take the most: rank 0."""
    stage = recipe.zero.stage
    zero = _zero(recipe, workers, precision)
    optimizer, offloaded = _optimizer(recipe, adapter, workers)
    parameters, gathered = _parameters(base, adapter, precision, zero, workers)
    parts = 0
    if precision.on_gpu and recipe.zero.offload_parameters:
        parts = _parts(base, precision, zero, workers)
    activations = kept_bytes(base.widths, adapter, batches.training, precision)
    host_libraries = CUDA_LIBRARIES_BYTES if precision.on_gpu else LIBRARIES_BYTES
    host_libraries += _TOKENIZER_TIMES * base.tokenizer_bytes
    proving = 0
    if recipe.checkpoint.prove:
        # On a CPU, whatever the ranks compute on, and not sharded.
        opened, _ = _loading(base, replace(precision, on_gpu=False), stage=0, workers=1)
        proving = LIBRARIES_BYTES + opened + sum(t.stored_bytes for t in adapter.saved)
    libraries = CUDA_CONTEXT_BYTES if precision.on_gpu else host_libraries
    copied, mapped = _loading(base, precision, stage, workers)
    is_causal = recipe.task == "causal_lm"
    return Memory(
        libraries=libraries,
        parameters=parameters - parts,
        gathered=gathered,
        gradients=_gradients(adapter, zero, workers, on_gpu=precision.on_gpu),
        optimizer=optimizer if precision.on_gpu else optimizer + offloaded,
        activations=activations,
        logits=logits_bytes(base.widths, batches.training, precision, learns=True)
        if is_causal
        else 0,
        holes=holes_bytes(adapter, batches.training, precision),
        evaluating=_evaluating(recipe, base, batches.evaluating, precision),
        loading=host_libraries + parts + copied + mapped,
        mapped=mapped,
        offloaded=offloaded + parts,
        proving=proving,
        host_at_rest=host_libraries + (offloaded + parts if precision.on_gpu else 0),
        on_gpu=precision.on_gpu,
    )


def _zero(recipe: Recipe, workers: int, precision: Precision) -> dict[str, Any]:
    """DeepSpeed's settings, as the ranks will get them."""
    config = zero_config(
        recipe, num_workers=workers, accumulation=1, bfloat16=precision.element_bytes == 2
    )
    settings: dict[str, Any] = config["zero_optimization"]
    return {**_DEFAULTS, **settings}


def _parameters(
    base: BaseShape,
    adapter: AdapterShape,
    precision: Precision,
    zero: Mapping[str, Any],
    workers: int,
) -> tuple[int, int]:
    """The base and what is trained as they lie on a rank, and under stage 3 what is gathered.

    Stage 3 divides every parameter of more elements than the threshold for good
    (partition_parameters.py, _partition_param); smaller ones are whole besides. Gathered ones stay
    until their next use is further away than stage3_max_reuse_distance, so in practice up to
    stage3_max_live_parameters. Each bucket's flat buffer lives as long as any parameter in it is
    still to be used (AllGatherCoalescedHandle is held for each of them), which doubles that. gloo
    makes one more copy of the bucket it is gathering (ProcessGroupGloo.cpp, newLikeFlat). Products
    with 4-bit weights keep what was gathered for them until the backward pass, which gathers it
    again (bitsandbytes' MatMul4Bit): a third copy, unless layers are computed again one by one.
    """
    trained = [Stored(elements=tensor.elements, width=4) for tensor in adapter.trained]
    parameters = [*_stored(base.without(t.name for t in adapter.trained), precision), *trained]
    if zero["stage"] < 3:
        return sum(parameter.bytes for parameter in parameters), 0
    threshold = zero["stage3_param_persistence_threshold"]
    parts = sum(-(-p.elements // workers) * p.width + p.beside for p in parameters)
    parts += _second_parts(parameters, zero)
    whole = sum(p.elements * p.width for p in parameters if p.elements <= threshold)
    divided = [p for p in parameters if p.elements > threshold]
    elements = sum(p.elements for p in divided)
    width = sum(p.elements * p.width for p in divided) / max(1, elements)
    live = min(elements, zero["stage3_max_live_parameters"])
    largest = max(p.elements for p in parameters)
    bucket = min(live, max(largest, zero["stage3_prefetch_bucket_size"]))
    if workers == 1:
        # Nothing is gathered: the whole is the part (NoGatherCoalescedHandle). What lies in host
        # memory is brought to the GPU.
        moved = live if precision.on_gpu and "offload_param" in zero else 0
        return sum(parameter.bytes for parameter in parameters), int(moved * width)
    copies = 2
    if precision.quantization != "none" and not precision.gradient_checkpointing:
        copies = 3
    return parts + whole, int((copies * live + (0 if precision.on_gpu else bucket)) * width)


def _second_parts(parameters: Sequence[Stored], zero: Mapping[str, Any]) -> int:
    """With hpZ (arXiv:2306.10209, section 3.2) a node has a copy of its own, divided among some of
    its workers (partition_parameters.py, _partition_param_sec)."""
    size = zero.get("zero_hpz_partition_size", 1)
    if size == 1:
        return 0
    threshold = zero["stage3_param_persistence_threshold"]
    return sum(-(-p.elements // size) * p.width for p in parameters if p.elements > threshold)


def _parts(base: BaseShape, precision: Precision, zero: Mapping[str, Any], workers: int) -> int:
    """What a rank has of the base that can lie elsewhere: scales, and parameters that stay whole,
    are where it computes."""
    threshold = zero["stage3_param_persistence_threshold"]
    frozen = [p for p in _stored(base, precision) if p.elements > threshold]
    return sum(-(-p.elements // workers) * p.width for p in frozen) + _second_parts(frozen, zero)


def _stored(base: BaseShape, precision: Precision) -> list[Stored]:
    return stored(
        base,
        width=precision.element_bytes,
        quantization=precision.quantization,
        double=precision.double_quantization,
    )


def _gradients(
    adapter: AdapterShape, zero: Mapping[str, Any], workers: int, *, on_gpu: bool
) -> int:
    """float32, and the bucket in which they are added up.

    Stage 0 flattens them into one more copy (engine.py, allreduce_bucket). Stages 1 to 3 fill a
    bucket of reduce_bucket_size elements (stage_1_and_2.py, setup_buckets; stage3.py,
    create_reduce_and_remove_grad_hooks), which is allocated whole: a GPU gives all of it, host
    memory only what is written to. Stages 2 and 3 keep a part of each gradient.
    """
    trained = adapter.parameters
    if zero["stage"] == 0:
        return 4 * trained * 2
    bucket = int(zero["reduce_bucket_size"])
    touched = bucket if on_gpu else min(bucket, trained)
    kept = trained if zero["stage"] == 1 else -(-trained // workers)
    return 4 * (touched + kept)


def _optimizer(recipe: Recipe, adapter: AdapterShape, workers: int) -> tuple[int, int]:
    """State and masters on the device, and in host memory.

    Without a stage the float32 parameters are the masters themselves; stages 1 to 3 step a flat
    copy of a part of them.
    """
    state = state_bytes(recipe.train.optimizer, adapter.trained)
    if recipe.zero.stage == 0:
        return state, 0
    total = -(-(state + 4 * adapter.parameters) // workers)
    return (0, total) if recipe.zero.offload_optimizer else (total, 0)


def _evaluating(
    recipe: Recipe, base: BaseShape, batch: MicroBatch | None, precision: Precision
) -> int:
    if batch is None:
        return 0
    total = passing_bytes(base.widths, batch, precision)
    if recipe.task == "causal_lm":
        total += logits_bytes(base.widths, batch, precision, learns=False)
    return total


def _loading(base: BaseShape, precision: Precision, stage: int, workers: int) -> tuple[int, int]:
    """Host memory of rank 0 beside its libraries while the base is loaded: its own, and mapped.

    The files are mapped, and count as resident as far as they were read; they can be dropped again
    when memory is short. A file in the base's own dtype is not copied but stays mapped. Stage 3
    makes each module whole before it is divided (deepspeed.zero.Init), on the device.
    """
    width = precision.element_bytes
    whole = base.parameters * width
    if precision.quantization != "none":
        # Every rank reads and packs all of it, under stage 3 too, where it computes.
        if precision.on_gpu:
            return 0, base.file_bytes
        packed = sum(parameter.bytes for parameter in _stored(base, precision))
        largest = max((rows * columns for rows, columns in base.linear.values()), default=0)
        return packed + _PACKING_BYTES * largest, base.file_bytes
    converted = any(t.stored_bytes not in (0, t.elements * width) for t in base.tensors)
    if stage < 3:
        return (whole if converted else 0), base.file_bytes
    if precision.on_gpu:
        return 0, base.file_bytes
    largest = max(tensor.elements for tensor in base.tensors) * width
    return -(-whole // workers) + 2 * largest, base.file_bytes


def node_bytes(memory: Memory, ranks: int) -> int:
    """Host memory of a node with so many ranks, rank 0 among them: the files once, all else for
    each."""
    loading = ranks * (memory.loading - memory.mapped) + memory.mapped
    at_rest = ranks * (memory.host_at_rest if memory.on_gpu else memory.training)
    return max(loading, at_rest + memory.proving) + RAY_BYTES


def terms(memory: Memory) -> Iterator[tuple[str, int]]:
    """The terms of `training` by name, as they are shown."""
    yield ("CUDA context" if memory.on_gpu else "Python and libraries"), memory.libraries
    yield "parameters", memory.parameters
    yield "gathered parameters", memory.gathered
    yield "gradients and their bucket", memory.gradients
    yield "optimizer", memory.optimizer
    yield "activations", memory.activations
    yield "logits", memory.logits
    if memory.holes:
        yield "freed, not used again", memory.holes
