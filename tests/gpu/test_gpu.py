"""What a GPU does otherwise than a CPU: NCCL, bfloat16, fused kernels. Needs one GPU."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapters.base_ref import base_ref
from recipes.base import Base
from recipes.zero import Zero
from support import jobs, tiny
from support.ranks import run_ranks
from trainer.batch import collate
from trainer.kernels import Kernels, choose_kernels, put_into
from trainer.loss import losses_of, training_loss
from trainer.shards import Row

pytestmark = pytest.mark.gpu

STAGES = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gpu")
    jobs.make_folders(root)
    return root


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


def test_a_gpu_and_a_cpu_learn_the_same(folders: Path):
    """float32 on both; on the GPU by NCCL and a fused AdamW, under every stage."""
    plain = dataclasses.replace(
        jobs.recipe(), base=Base(source="/tiny", dtype="float32", kernels="torch")
    )
    cpu = run_ranks(1, _train, folders, "cpu", plain, [0])
    gpu = run_ranks(1, _train, folders, "gpu", plain, STAGES, device="cuda")
    for stage in STAGES:
        assert gpu[stage]["losses"] == pytest.approx(cpu[0]["losses"], rel=1e-3)


def test_a_run_on_a_gpu_goes_on_bit_by_bit(folders: Path):
    whole = run_ranks(1, _train, folders, "whole", jobs.recipe(), STAGES, device="cuda")
    for stage in STAGES:
        again = run_ranks(1, _resume, folders, stage, whole[stage]["checkpoint"], device="cuda")
        assert again["losses"] == whole[stage]["losses"][3:]


def _train(folders: Path, label: str, chosen: object, stages: list[int]) -> dict:
    return jobs.train_stages(folders, label, stages, chosen=chosen)


def _resume(folders: Path, stage: int, checkpoint: str) -> dict:
    return jobs.train(
        folders,
        f"again_{stage}",
        dataclasses.replace(jobs.recipe(), zero=Zero(stage=stage)),
        resume_from=Path(checkpoint).parent / "step_000003",
    )


def test_auto_is_bfloat16_and_learns(folders: Path):
    chosen = dataclasses.replace(jobs.recipe(), base=Base(source="/tiny"))
    found = run_ranks(1, _train, folders, "auto", chosen, STAGES, device="cuda")
    for stage in STAGES:
        assert found[stage]["losses"][-1] < found[stage]["losses"][0]
        assert found[stage]["losses"] == pytest.approx(found[0]["losses"], rel=2e-2)


def test_two_gpus_are_one(folders: Path):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    one = run_ranks(1, _train, folders, "one", jobs.recipe(), [0], device="cuda")
    two = run_ranks(2, _train, folders, "two", jobs.recipe(), STAGES, device="cuda")
    for stage in STAGES:
        assert two[stage]["losses"] == pytest.approx(one[0]["losses"], rel=1e-3)


@needs("flash_attn")
def test_flash_attention_keeps_packed_samples_apart(folders: Path, tmp_path: Path):
    """Two rows at a time: by positions alone, flash attention would let their samples mix."""
    model = _model(folders, torch.bfloat16, "flash_attention_2")
    kernels = Kernels(attention="flash_attention_2", fused=False, fused_loss=False)
    made = tiny.samples(6)
    alone = sum(_loss(model, _rows(tmp_path, [[i]], made), kernels) for i in range(6))
    packed = _loss(model, _rows(tmp_path, [[0, 1, 2], [3, 4, 5]], made), kernels)
    assert packed == pytest.approx(alone, rel=5e-3)


@needs("liger_kernel")
def test_the_fused_loss_is_the_plain_one(folders: Path, tmp_path: Path):
    rows = _rows(tmp_path, [[0, 1, 2], [3], [4, 5, 6]], tiny.samples(7))
    batch = collate(rows, pad_token_id=0).to(torch.device("cuda"))
    found = []
    for choice in ("torch", "auto"):
        model = _model(folders, torch.float32, "sdpa").train()
        model.model.embed_tokens.weight.requires_grad_(True)
        kernels = choose_kernels(
            Base(source="/tiny", kernels=choice),
            "causal_lm",
            torch.float32,
            torch.device("cuda"),
        )
        kernels = put_into(model, kernels)
        assert kernels.fused_loss is (choice == "auto")
        loss, losses = training_loss(model, batch, task="causal_lm", kernels=kernels)
        assert (losses is None) is (choice == "auto")
        loss.backward()
        found.append((loss.item(), model.model.embed_tokens.weight.grad))
    (plain, plain_gradient), (fused, fused_gradient) = found
    assert fused == pytest.approx(plain, rel=1e-4)
    torch.testing.assert_close(fused_gradient, plain_gradient, rtol=1e-2, atol=1e-3)


def test_generation_on_a_gpu(folders: Path):
    folder = folders / "llama"
    assert _answers(folder, "cuda") == run_ranks(1, _answers, folder, "cpu")


def _answers(folder: Path, device: str) -> list[str]:
    """Of the base alone, in batches, and streamed."""
    from trainer.generation import Sampling, generate, stream
    from trainer.opened import OpenedBase
    from trainer.opening import Opening

    base = Base(source=str(folder), dtype="float32", attention="sdpa")
    ref = base_ref(str(folder), None, folder)
    opened = OpenedBase(
        Opening(base=base, folder=folder, ref=ref, task="causal_lm"), torch.device(device)
    )
    prompts = [[7, 8], [9, 10, 11, 12], [13]]
    with opened.by(None) as model:
        texts = generate(
            model,
            opened.tokenizer,
            prompts,
            max_new_tokens=8,
            device=opened.device,
            batch_size=3,
        )
    streamed = "".join(stream(opened, None, prompts[0], Sampling(max_new_tokens=8)))
    assert streamed.strip() == texts[0]
    return texts


def _model(folders: Path, dtype: torch.dtype, attention: str) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_pretrained(
        folders / "llama", dtype=dtype, attn_implementation=attention
    )
    model.requires_grad_(False)
    return model.cuda().eval()


def _rows(folder: Path, packs: list[list[int]], made: list) -> list[Row]:
    rows = [tiny.row([made[i] for i in pack], pack[0]) for pack in packs]
    split = tiny.split_of(folder / f"{packs}".replace(" ", ""), rows)
    return [split[index] for index in range(len(split))]


@torch.no_grad()
def _loss(model: torch.nn.Module, rows: list[Row], kernels: Kernels) -> float:
    batch = collate(rows, pad_token_id=0).to(torch.device("cuda"))
    losses, _ = losses_of(model, batch, task="causal_lm", kernels=kernels)
    return float(losses.sum())
