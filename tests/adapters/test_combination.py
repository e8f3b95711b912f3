"""Adapters combined into one, which plain PEFT opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoKrConfig, LoraConfig, PeftModel
from transformers import AutoModelForCausalLM

from adapters.base_ref import base_ref
from adapters.combination import METHODS, Combined, Recipe, combine
from recipes.errors import AdapterError
from support import tiny, used


@pytest.fixture(scope="module")
def adapters(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("combined")
    ia3 = IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    )  # fmt: skip
    configs: dict[str, Any] = {
        "a": used.lora(use_rslora=True),
        "b": used.lora(),
        "uneven": used.lora(rank_pattern={"v_proj": 6}),
        "wide": used.lora(r=6, target_modules=["q_proj", "up_proj"]),
        "dora": used.lora(use_dora=True),
        "head": used.lora(modules_to_save=["lm_head"]),
        "lokr": LoKrConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"]),
        "ia3": ia3,
        "ia3 again": ia3,
    }
    for seed, (name, config) in enumerate(configs.items()):
        used.save_adapter(root / name, llama, config, seed, 0, 0.1)
    return {name: root / name for name in configs}


def make(
    llama: Path, adapters: dict[str, Path], names: list[str], to: Path, *weights: float, **how: Any
) -> Combined:
    to.mkdir()
    return combine(
        [adapters[name] for name in names],
        Recipe(weights=weights, **how),
        to,
        base=base_ref(str(llama), None, llama),
        base_folder=llama,
        task="causal_lm",
        device=torch.device("cpu"),
    )


def merged(llama: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """What an adapter adds to the base's weights, by plain PEFT."""
    base = AutoModelForCausalLM.from_pretrained(llama)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    after = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().state_dict()
    return {name: after[name] - value for name, value in before.items()}


@pytest.mark.parametrize(
    ("names", "how"),
    [
        (["a", "b"], {}),
        (["a", "wide"], {"method": "cat"}),
        (["a", "wide"], {"method": "svd", "rank": 10}),
        (["a", "uneven"], {"method": "cat"}),
    ],
)
def test_exact_methods_add_up_what_the_adapters_add(
    llama: Path, adapters: dict[str, Path], tmp_path: Path, names: list[str], how: dict[str, Any]
):
    made = make(llama, adapters, names, tmp_path / "made", 0.7, -0.4, **how)
    assert made.rank == (8 if names[1] == "b" else 10)
    first, second, both = (merged(llama, f) for f in
                           (adapters[names[0]], adapters[names[1]], tmp_path / "made"))  # fmt: skip
    changed = 0
    for name, value in both.items():
        expected = 0.7 * first[name] - 0.4 * second[name]
        torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-4)
        changed += bool(expected.abs().max() > 1e-2)
    assert changed >= 6


@pytest.mark.parametrize("method", METHODS["LORA"])
def test_every_method_opens_in_plain_peft(
    llama: Path, adapters: dict[str, Path], tmp_path: Path, method: str
):
    made = make(llama, adapters, ["a", "b"], tmp_path / "made", 0.5, 0.5, method=method)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(llama), str(tmp_path / "made")
    )
    config = model.peft_config["default"]
    assert isinstance(config, LoraConfig)
    assert config.r == made.rank == config.lora_alpha
    assert not config.use_rslora  # the first one's: its scale is in the matrices by now
    assert any(value.abs().max() > 1e-3 for value in merged(llama, tmp_path / "made").values())
    assert made.recipe.density == (None if method in ("cat", "svd", "linear") else 0.5)


def test_dare_is_repeatable(llama: Path, adapters: dict[str, Path], tmp_path: Path):
    files = []
    for name, seed in (("x", 1), ("y", 1), ("z", 2)):
        make(llama, adapters, ["a", "b"], tmp_path / name, 0.5, 0.5, method="dare_ties", seed=seed)
        files.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


def test_ia3_scales_are_weighed(llama: Path, adapters: dict[str, Path], tmp_path: Path):
    made = make(llama, adapters, ["ia3", "ia3 again"], tmp_path / "made", 0.5, 0.5)
    assert (made.kind, made.recipe.method) == ("IA3", "linear")
    first, second, both = (merged(llama, folder) for folder in
                           (adapters["ia3"], adapters["ia3 again"], tmp_path / "made"))  # fmt: skip
    for name, value in both.items():
        torch.testing.assert_close(value, (first[name] + second[name]) / 2, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("names", "how", "why"),
    [
        (["a", "ia3"], {}, "of different kinds cannot be combined: IA3, LORA"),
        (["lokr", "lokr"], {}, "does not combine adapters of the kind LOKR, only LORA and IA3"),
        (["dora", "a"], {}, "DoRA cannot be combined"),
        (["a", "head"], {}, "modules of their own"),
        (["a", "wide"], {"method": "ties"}, "takes adapters of one rank, and these have 4, 6"),
        (["a", "uneven"], {"method": "linear"}, "these have others in some modules"),
        (["a", "b"], {"method": "slerp"}, "PEFT does not know it for LORA; it has cat, svd"),
        (["a", "b"], {"method": "cat", "rank": 3}, "--rank: --method = cat leaves no choice"),
        (["a", "b"], {"density": 0.3}, "--density: --method = cat keeps every number"),
        (["a", "b"], {"weights": (float("nan"), 1.0)}, "would hold no numbers"),
    ],
)
def test_what_peft_cannot_do_is_refused(
    llama: Path, adapters: dict[str, Path], tmp_path: Path, names: list[str],
    how: dict[str, Any], why: str,
):  # fmt: skip
    weights = how.pop("weights", (0.5, 0.5))
    with pytest.raises(AdapterError, match=why):
        make(llama, adapters, names, tmp_path / "made", *weights, **how)
    assert list((tmp_path / "made").iterdir()) == []


def test_no_weight_of_the_base_is_read(llama: Path, adapters: dict[str, Path], tmp_path: Path):
    copy = tiny.make_llama(tmp_path / "llama")
    (copy / "model.safetensors").unlink()
    make(copy, adapters, ["a", "b"], tmp_path / "made", 0.5, 0.5)
    assert (tmp_path / "made" / "adapter_model.safetensors").is_file()
