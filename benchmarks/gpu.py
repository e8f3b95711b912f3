"""LoRA on one GPU: tokens per second, model FLOPs utilisation and memory of an 8B-shaped Llama.

The weights are random and made on the device, the data are random tokens, all supervised; the rank,
the engine, the loop and the kernels are those of a run. `python -m benchmarks.gpu` measures rank 16
on every linear module in bfloat16 at 4,096 tokens, the setting of the public figure to beat.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.distributed as dist
import typer
from transformers import AutoModelForCausalLM, LlamaConfig

from adapters.attached import trainable
from adapters.base import LoadedBase, freeze
from benchmarks.record import write_result
from recipes.adapter import Lora
from recipes.base import Base
from recipes.data import Data, Source
from recipes.recipe import Recipe
from recipes.train import Train
from trainer.device import rank_device
from trainer.engine import Engine, build_engine
from trainer.loop import Loop, StepResult
from trainer.order import Order
from trainer.pulse import Pulse
from trainer.shard_writer import write_shard
from trainer.shards import IGNORED
from trainer.split import Split, write_index

# NeMo Automodel's performance summary: Llama 3 8B, LoRA, bfloat16, 4,096 tokens, one H100.
PUBLIC = {"tokens_per_s": 12_473, "tflops": 402, "utilisation": 0.406}

# Dense bfloat16, from NVIDIA's data sheets (TFLOP/s).
_PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312, "L40S": 362}

_WARM_UP_STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a Llama; the defaults are those of Llama 3 8B."""

    vocabulary: int = 128_256
    hidden: int = 4096
    intermediate: int = 14_336
    layers: int = 32
    heads: int = 32
    kv_heads: int = 8

    def config(self, sequence_length: int) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=sequence_length,
            tie_word_embeddings=False,
        )

    def flops_per_token(self, sequence_length: int, adapter_parameters: int) -> float:
        """Floating-point operations of one training step per token.

        A matrix of n numbers costs 2n forward and 2n for the gradient of its input; only an
        adapter's costs 2n more, for its own gradient. Causal attention sees half the tokens on
        average, and its backward pass costs twice its forward (arXiv:2205.14135, appendix).
        """
        kv = self.hidden * self.kv_heads // self.heads
        layer = 2 * self.hidden**2 + 2 * self.hidden * kv + 3 * self.hidden * self.intermediate
        frozen = self.layers * layer + self.vocabulary * self.hidden
        attention = 3 * 2 * self.layers * self.hidden * sequence_length
        return 4.0 * frozen + 6.0 * adapter_parameters + attention


def measure(
    shape: Shape,
    *,
    sequence_length: int,
    micro_batch_size: int,
    accumulation: int,
    steps: int,
    gradient_checkpointing: bool,
) -> dict[str, Any]:
    """Train for `steps` steps as the only rank of a new process group."""
    device = _begin()
    recipe = Recipe(
        name="bench",
        base=Base(
            source="/random", dtype="bfloat16", gradient_checkpointing=gradient_checkpointing
        ),
        data=Data(train=[Source(path="/random")], sequence_length=sequence_length),
        adapter=Lora(r=16, alpha=32),
        train=Train(
            steps=steps,
            global_batch_size=micro_batch_size * accumulation,
            micro_batch_size=micro_batch_size,
        ),
    )

    def load(dtype: torch.dtype, attention: str) -> LoadedBase:
        with device:
            model = AutoModelForCausalLM.from_config(
                shape.config(sequence_length), dtype=dtype, attn_implementation=attention
            )
        freeze(model, gradient_checkpointing=gradient_checkpointing)
        return LoadedBase(model=model, new_parameters=(), folder=Path())

    with tempfile.TemporaryDirectory() as folder:
        split = _random_rows(Path(folder), shape.vocabulary, sequence_length, micro_batch_size * 8)
        order = Order(
            num_rows=len(split),
            seed=0,
            global_batch_size=recipe.train.global_batch_size,
            micro_batch_size=micro_batch_size,
        )
        engine = build_engine(recipe, load, order=order, num_steps=steps, device=device, state=None)
        loop = Loop(
            recipe=recipe,
            engine=engine,
            split=split,
            order=order,
            num_steps=steps,
            pad_token_id=0,
            mixture=(),
            pulse=Pulse(),
            stop_requested=lambda: False,
            save_due=lambda: False,
        )
        results = list(loop.steps(0))
    dist.destroy_process_group()
    return _figures(shape, sequence_length, engine, results[_WARM_UP_STEPS:] or results)


def _begin() -> torch.device:
    """A process group of one, on the GPU if there is one."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    device = rank_device()
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    return device


def _random_rows(folder: Path, vocabulary: int, length: int, count: int) -> Split:
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        ids = random.integers(0, vocabulary, length).tolist()
        rows.append(
            {
                "input_ids": ids,
                "labels": [IGNORED, *ids[1:]],
                "lengths": [length],
                "samples": [number],
                "supervised": length - 1,
                "label": -1,
                "choice": -1,
                "answer": -1,
            }
        )
    shards = [write_shard(folder / "rows.arrow", rows)]
    write_index(folder, shards)
    return Split(folder, shards)


def _figures(
    shape: Shape, sequence_length: int, engine: Engine, results: list[StepResult]
) -> dict[str, Any]:
    adapter = sum(parameter.numel() for parameter in trainable(engine.model).values())
    tokens_per_s = statistics.median(result.tokens / result.seconds for result in results)
    tflops = tokens_per_s * shape.flops_per_token(sequence_length, adapter) / 1e12
    figures: dict[str, Any] = {
        "shape": asdict(shape),
        "sequence_length": sequence_length,
        "adapter_parameters": adapter,
        "attention": engine.kernels.attention,
        "liger": engine.kernels.fused,
        "losses": [result.loss for result in results],
        "tokens_per_s": tokens_per_s,
        "tflops": tflops,
    }
    if engine.device.type == "cuda":
        name = torch.cuda.get_device_name(engine.device)
        peak = next((value for key, value in _PEAK_TFLOPS.items() if key in name), None)
        figures["utilisation"] = tflops / peak if peak else None
        figures["peak_memory_gib"] = torch.cuda.max_memory_allocated(engine.device) / 2**30
        figures["public"] = PUBLIC
    return figures


def main(
    micro_batch_size: Annotated[int, typer.Option(help="Sequences computed at a time.")] = 1,
    accumulation: Annotated[int, typer.Option(help="Micro-batches of a step.")] = 8,
    steps: Annotated[int, typer.Option(help="Steps to train.")] = 12,
    gradient_checkpointing: Annotated[bool, typer.Option(help="Less memory, slower.")] = False,
) -> None:
    """Measure on the GPU of this machine and write benchmarks/results/gpu_<device>.json."""
    if not torch.cuda.is_available():
        raise SystemExit("This benchmark needs a GPU that torch can use; there is none here")
    name = torch.cuda.get_device_name(0)
    figures = measure(
        Shape(),
        sequence_length=4096,
        micro_batch_size=micro_batch_size,
        accumulation=accumulation,
        steps=steps,
        gradient_checkpointing=gradient_checkpointing,
    )
    settings = {
        "micro_batch_size": micro_batch_size,
        "accumulation": accumulation,
        "gradient_checkpointing": gradient_checkpointing,
    }
    slug = name.lower().replace(" ", "_")
    write_result(f"gpu_{slug}", settings | figures, device=name)


if __name__ == "__main__":
    typer.run(main)
