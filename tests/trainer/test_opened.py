"""A base opened once, with adapters of several kinds over it, and what it answers."""

from __future__ import annotations

import pickle
import random
import shutil
import threading
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LNTuningConfig, LoKrConfig, PeftModel, PromptTuningConfig, VeraConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from adapters.base_ref import BaseRef, base_ref
from adapters.checkpoint_folder import Origin, Position, folder_of, read_manifest, write_manifest
from recipes.base import Base
from recipes.errors import AdapterError, CheckpointError
from support import tiny, used
from trainer.generation import Sampling, generate, stream
from trainer.opened import OpenedBase
from trainer.opening import Opening

KINDS = {
    "lora": used.lora(),
    "wide lora": used.lora(r=6, target_modules=["up_proj"], use_rslora=True),
    "dora": used.lora(use_dora=True),
    "ia3": IA3Config(
        task_type="CAUSAL_LM",
        target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    ),
    "lokr": LoKrConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"]),
    "vera": VeraConfig(
        task_type="CAUSAL_LM", r=8, target_modules=["v_proj"], save_projection=False
    ),
    "norms": LNTuningConfig(task_type="CAUSAL_LM", target_modules=["input_layernorm"]),
    "prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
}


@pytest.fixture(scope="module")
def adapters(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoint of each kind; of lora a second one."""
    storage = tmp_path_factory.mktemp("used") / "runs"
    configs = {**KINDS, "lora again": KINDS["lora"]}
    return {
        name: folder_of(
            used.make_run(storage, name, llama, config=config, seed=seed) / "checkpoints", 7
        )
        for seed, (name, config) in enumerate(configs.items())
    }


def opening(base: Path, **changes: str) -> Opening:
    ref = base_ref(str(base), None, base)
    recipe = Base(source=str(base), dtype="float32", **changes)  # type: ignore[arg-type]
    return Opening(base=recipe, folder=base, ref=ref, task="causal_lm")


@pytest.fixture(scope="module")
def opened(llama: Path, adapters: dict[str, Path]) -> OpenedBase:
    found = OpenedBase(opening(llama))
    for name, folder in adapters.items():
        found.add(name, folder)
    return found


def prompts(count: int = 24) -> list[list[int]]:
    numbers = random.Random(0)
    return [
        [numbers.randrange(6, 106) for _ in range(numbers.randrange(1, 30))] for _ in range(count)
    ]


def asked(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(6, 26).reshape(2, 10)
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def test_each_adapter_computes_as_in_plain_peft_whichever_came_before(
    opened: OpenedBase, adapters: dict[str, Path], llama: Path
):
    def plain(name: str | None) -> torch.Tensor:
        model = AutoModelForCausalLM.from_pretrained(llama)
        if name is None:
            return asked(model.eval())
        return asked(PeftModel.from_pretrained(model, str(adapters[name] / "adapter")).eval())

    expected = {name: plain(name) for name in (None, *adapters)}
    for name in adapters:
        assert not torch.allclose(expected[name][:, -10:], expected[None], atol=1e-3), name
    order = [None, *adapters] * 2
    random.Random(1).shuffle(order)
    for name in order:
        with opened.by(name) as model:
            assert torch.equal(asked(model), expected[name]), name


@pytest.mark.parametrize("name", [None, "lora", "prompt"])
def test_a_batch_is_answered_as_each_alone(opened: OpenedBase, name: str | None):
    def answers(batch_size: int) -> list[str]:
        with opened.by(name) as model:
            return generate(
                model,
                opened.tokenizer,
                prompts(),
                max_new_tokens=12,
                device=opened.device,
                batch_size=batch_size,
            )

    alone = answers(1)
    assert len(set(alone)) > 12
    assert len({len(text.split()) for text in alone}) > 1
    for batch_size in (5, 24):
        assert answers(batch_size) == alone


def test_a_penalty_for_repetition_does_not_see_the_padding(opened: OpenedBase):
    with opened.by("lora") as model:
        model.generation_config.repetition_penalty = 1.3
        try:
            alone, batched = (
                generate(
                    model,
                    opened.tokenizer,
                    prompts(),
                    max_new_tokens=8,
                    device=opened.device,
                    batch_size=batch_size,
                )
                for batch_size in (1, 8)
            )
        finally:
            model.generation_config.repetition_penalty = None
    assert batched == alone


def test_a_stream_is_the_same_answer_in_pieces(opened: OpenedBase):
    for prompt in prompts(4):
        with opened.by("lora") as model:
            [whole] = generate(
                model, opened.tokenizer, [prompt], max_new_tokens=20, device=opened.device
            )
        pieces = list(stream(opened, "lora", prompt, Sampling(max_new_tokens=20)))
        assert len(pieces) > 3
        assert "".join(pieces).strip() == whole


def test_a_stream_that_is_closed_stops(opened: OpenedBase):
    pieces = stream(opened, None, [7, 8], Sampling(max_new_tokens=200, temperature=1.0))
    assert next(pieces).strip()
    pieces.close()
    assert "answering" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(IndexError):  # what happens in the thread is raised here
        list(stream(opened, None, [999_999], Sampling(max_new_tokens=2)))


def test_sampling_is_not_greedy_and_follows_top_p(opened: OpenedBase):
    def answer(sampling: Sampling) -> str:
        return "".join(stream(opened, None, [9, 10, 11], sampling))

    greedy = answer(Sampling(max_new_tokens=15))
    torch.manual_seed(0)
    sampled = {answer(Sampling(max_new_tokens=15, temperature=1.5)) for _ in range(3)}
    assert len(sampled) == 3
    assert greedy not in sampled
    assert answer(Sampling(max_new_tokens=15, temperature=1.0, top_p=1e-6)) == greedy


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_over_a_quantised_base(llama: Path, adapters: dict[str, Path], kind: str):
    found = OpenedBase(opening(llama, quantization=kind))
    with found.by(None) as model:
        before = asked(model)
    for name in ("lora", "ia3", "lora again"):
        found.add(name, adapters[name])
        with found.by(name) as model:
            assert not torch.equal(asked(model), before)
    with found.by(None) as model:
        assert torch.equal(asked(model), before)


@pytest.fixture
def checkpoint(adapters: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(adapters["lora"], tmp_path / "step_000007"))


def reseal(folder: Path) -> None:
    """As somebody would who knows the format."""
    base = BaseRef(**read_manifest(folder)["base"])
    (folder / "manifest.json").unlink()
    origin = Origin(base=base, recipe_digest="r", data_digest="d", dtype="float32")
    write_manifest(folder, origin, Position(step=7))


def test_spoilt_files_are_refused_by_name(opened: OpenedBase, checkpoint: Path):
    weights = checkpoint / "adapter" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    for spoilt in (whole[:-9], whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(spoilt)
        with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: differs from what"):
            opened.add("spoilt", checkpoint)
    (checkpoint / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no readable manifest"):
        opened.add("spoilt", checkpoint)


def test_a_pickle_is_never_read(opened: OpenedBase, checkpoint: Path, tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    (checkpoint / "adapter" / "adapter_model.safetensors").unlink()
    reseal(checkpoint)
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: is missing"):
        opened.add("trap", checkpoint)
    (checkpoint / "adapter" / "adapter_model.bin").write_bytes(pickle.dumps(Trap()))
    reseal(checkpoint)
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin: is a pickle"):
        opened.add("trap", checkpoint)
    assert not (tmp_path / "ran").exists()


def test_an_adapter_that_does_not_fit_is_refused(opened: OpenedBase, checkpoint: Path, llama: Path):
    file = checkpoint / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    del tensors[min(tensors)]
    save_file(tensors, file)
    reseal(checkpoint)
    with pytest.raises(AdapterError, match=r"does not fit the base: base_model\.model\.model"):
        OpenedBase(opening(llama)).add("short", checkpoint)
    save_file({name: tensor[:, :-1].contiguous() for name, tensor in tensors.items()}, file)
    reseal(checkpoint)
    with pytest.raises(AdapterError, match="does not fit the base"):
        OpenedBase(opening(llama)).add("narrow", checkpoint)


def test_another_base_or_tokenizer_is_refused(checkpoint: Path, llama: Path, tmp_path: Path):
    tiny.make_llama(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match=r"was trained on .*llama .*, not on .*other"):
        OpenedBase(opening(tmp_path / "other")).add("a", checkpoint)
    retold = Path(shutil.copytree(llama, tmp_path / "retold"))
    with (retold / "chat_template.jinja").open("a") as template:
        template.write("!")
    with pytest.raises(CheckpointError, match="another tokenizer"):
        OpenedBase(opening(retold)).add("a", checkpoint)
