"""`shoal export` on runs of tiny models: what leaves the house opens alone and says the same."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from adapters.mirror import ObjectMirror
from launcher.cli import app
from launcher.commands.exits import status_of
from launcher.exporting import export as exporting
from launcher.exporting.verify import verify_path
from recipes.adapter import Lora
from recipes.address import join
from recipes.base import Base
from recipes.checkpoint import Checkpoint
from recipes.load import LoadedRecipe
from recipes.recipe import Recipe
from recipes.resolved import to_yaml, values
from recipes.storage import Storage
from recipes.train import Train
from support import jobs, tiny
from support.asked import ids, train_and_ask
from support.ranks import run_ranks

Shoal = Callable[..., tuple[int, str, str]]
TRAIN = Train(steps=4, global_batch_size=8, micro_batch_size=2, learning_rate=1e-2)
LORA = Lora(r=4, alpha=8, targets=["q_proj", "v_proj", "up_proj"])


def recipes(root: Path) -> dict[str, Recipe]:
    def of(name: str, base: str, **changes: object) -> Recipe:
        return jobs.recipe(
            name=name,
            base=Base(source=str(root / base), dtype="float32"),
            train=TRAIN,
            checkpoint=Checkpoint(every_steps=2, keep=5, prove=False),
            storage=Storage(path=str(root / "runs"), cache=str(root / "cache")),
            **changes,
        )

    quantised = Base(source=str(root / "llama"), dtype="float32", quantization="nf4")
    return {
        "chat": of("chat", "llama", adapter=LORA),
        "nf4": dataclasses.replace(of("nf4", "llama", adapter=LORA), base=quantised),
        "labels": of(
            "labels",
            "bert",
            task="sequence_classification",
            adapter=Lora(r=4, targets=["query"], modules_to_save=["classifier"]),
        ),
    }


def train_all(root: Path) -> torch.Tensor:
    """Logits of `ids()` by the model of `chat` as it was trained."""
    chosen = recipes(root)
    asked = train_and_ask(root, {"chat": chosen["chat"]}, "runs/chat")
    shutil.move(root / "runs" / "chat_0", root / "runs" / "chat")
    jobs.train(root, "runs/nf4", chosen["nf4"])
    jobs.train(root, "runs/labels", chosen["labels"], base="bert", prepared="labelled")
    return asked["chat"]["logits"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A folder with runs as `shoal run` leaves them, and the logits of one."""
    root = tmp_path_factory.mktemp("trained")
    jobs.make_folders(root)
    (root / "runs").mkdir()
    logits = run_ranks(1, train_all, root)
    for name, recipe in recipes(root).items():
        origins = dict.fromkeys(values(recipe), "recipe")
        text = to_yaml(LoadedRecipe(recipe=recipe, file=root / "tiny.yaml", origins=origins))
        (root / "runs" / name / "recipe.yaml").write_text(text)
    (root / "cache" / "prepared").mkdir(parents=True)
    for folder in ("prepared", "labelled"):
        (root / folder).rename(root / "cache" / "prepared" / folder)
    return root, logits


@pytest.fixture
def root(trained: tuple[Path, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained[0])
    return trained[0]


@pytest.fixture
def shoal(root: Path, capsys: pytest.CaptureFixture[str]) -> Shoal:
    """The command: its exit status and what it printed."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()  # what a test itself has printed
        status = status_of(lambda: app(list(arguments)))
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(input_ids=ids()).logits


def base_and_adapter(root: Path, run: str) -> torch.Tensor:
    """By plain PEFT, from the run's own checkpoint."""
    if run == "labels":
        kind, base = AutoModelForSequenceClassification, root / "bert"
        model = kind.from_pretrained(base, dtype=torch.float32, num_labels=2)
    else:
        kind, base = AutoModelForCausalLM, root / "llama"
        model = kind.from_pretrained(base, dtype=torch.float32)
    return logits(
        PeftModel.from_pretrained(
            model, str(root / "runs" / run / "checkpoints/step_000004/adapter")
        )
    )


def snapshot(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_an_adapter_opens_with_peft_alone(shoal: Shoal, root: Path, tmp_path: Path, trained):
    folder = tmp_path / "out" / "adapter"
    status, out, _ = shoal("export", "chat", "--adapter", "--to", str(folder))
    assert (status, out) == (0, f"Exported the adapter of step 4 to {folder}\n")
    assert {file.name for file in folder.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
        "recipe.yaml",
    }
    base = AutoModelForCausalLM.from_pretrained(root / "llama", dtype=torch.float32)
    opened = logits(PeftModel.from_pretrained(base, str(folder)))
    torch.testing.assert_close(opened, trained[1], rtol=1e-5, atol=1e-5)
    [verdict] = verify_path(folder)
    assert verdict.whole
    assert verdict.said.startswith("exported LORA adapter of step 4")
    card = (folder / "README.md").read_text()
    assert "40 samples in 40 sequences" in card
    assert "| loss | – | " in card  # measured after the last step; not before the first


def test_an_older_step_and_another_name_of_the_base(shoal: Shoal, root: Path, tmp_path: Path):
    options = ["--adapter", "--step", "2", "--base-model", "org/tiny", "--to", str(tmp_path / "a")]
    assert shoal("export", "runs/chat", *options)[0] == 0
    card = (tmp_path / "a" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "org/tiny"
    assert "None were measured." in card
    assert str(root) not in (tmp_path / "a" / "adapter_config.json").read_text()
    status, _, err = shoal("export", "chat", "--adapter", "--step", "3")
    assert status == 1
    assert err.endswith("has no such checkpoint. It has steps 2, 4\n")


@pytest.mark.parametrize("run", ["chat", "labels"])
def test_a_merged_model_opens_with_transformers_alone(
    shoal: Shoal, root: Path, tmp_path: Path, run: str
):
    folder = tmp_path / "merged"
    status, out, err = shoal("export", run, "--merged", "--to", str(folder))
    assert status == 0, err
    assert out.endswith(f"Exported the merged model of step 4 to {folder}\n")
    if run == "labels":
        opened = AutoModelForSequenceClassification.from_pretrained(folder)
        assert opened.config.id2label == {0: "bad", 1: "good"}
        assert opened.config.label2id == {"bad": 0, "good": 1}
    else:
        opened = AutoModelForCausalLM.from_pretrained(folder)
    assert opened.dtype == torch.float32
    torch.testing.assert_close(logits(opened), base_and_adapter(root, run), rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(folder)("w3 w4")["input_ids"] == [9, 10]
    [verdict] = verify_path(folder)
    assert verdict.whole
    assert verdict.said.startswith("exported merged model of step 4")


def test_in_shards_of_bfloat16_from_a_quantised_run(shoal: Shoal, root: Path, tmp_path: Path):
    folder = tmp_path / "merged"
    options = ["--dtype", "bfloat16", "--max-shard-size", "100KB", "--to", str(folder)]
    assert shoal("export", "nf4", "--merged", *options)[0] == 0
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    opened = AutoModelForCausalLM.from_pretrained(folder)
    assert opened.dtype == torch.bfloat16
    near = (logits(opened).float() - base_and_adapter(root, "nf4")).abs().max()
    assert near < 0.2
    card = (folder / "README.md").read_text()
    assert "It was trained on the base quantised to nf4" in card
    assert "Then the numbers were rounded to bfloat16." in card


def test_another_base_is_refused(shoal: Shoal, root: Path, tmp_path: Path):
    other = tiny.make_llama(tmp_path / "other", seed=5)
    options = [f"base.source={other}", "--merged", "--to", str(tmp_path / "merged")]
    status, _, err = shoal("export", "chat", *options)
    assert status == 1
    assert f"was trained on {root}/llama (" in err and f"not on {other} (" in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]
    status, _, err = shoal("export", "chat", "adapter.r=8", "--adapter")
    assert "adapter.r = 8 (was 4)" in err


def test_a_moved_base_is_taken(shoal: Shoal, root: Path, tmp_path: Path):
    shutil.copytree(root / "llama", tmp_path / "moved")
    options = [f"base.source={tmp_path / 'moved'}", "--merged", "--to", str(tmp_path / "merged")]
    assert shoal("export", "chat", *options)[0] == 0


@pytest.mark.parametrize("what", ["--adapter", "--merged", "--gguf"])
def test_a_damaged_checkpoint_is_told_in_one_line(
    shoal: Shoal, root: Path, tmp_path: Path, what: str
):
    shutil.copytree(root / "runs" / "chat", tmp_path / "runs" / "chat")
    run = tmp_path / "runs" / "chat"
    file = run / "checkpoints" / "step_000004" / "adapter" / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(bytes(content))
    before = snapshot(tmp_path)
    status, _, err = shoal("export", str(run), what, "--to", str(tmp_path / "out" / "x"))
    assert status == 1
    assert err == (
        f"shoal: error: {file}: differs from what was saved. The newest whole one is older; name "
        "it: --step 2\n"
    )
    assert snapshot(tmp_path) == before
    if what == "--adapter":
        options = [what, "--step", "2", "--to", str(tmp_path / "out" / "x")]
        assert shoal("export", str(run), *options)[0] == 0


def test_a_spoilt_export_is_told(shoal: Shoal, tmp_path: Path):
    folder = tmp_path / "a"
    shoal("export", "chat", "--adapter", "--to", str(folder))
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")
    status, out, _ = shoal("verify", str(folder))
    assert status == 1
    assert out == (
        f"BAD    {folder}: adapter_model.bin: is no part of what was exported, and would be read. "
        "Take it away\n"
    )
    (folder / "adapter_model.bin").unlink()
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    status, out, _ = shoal("verify", str(folder))
    assert out.startswith(f"BAD    {folder}: adapter_model.safetensors: differs")


def test_what_is_there_is_replaced_only_knowingly(shoal: Shoal, tmp_path: Path):
    folder = tmp_path / "a"
    export = ("export", "chat", "--adapter", "--to", str(folder))
    assert shoal(*export, "--step", "2")[0] == 0
    status, _, err = shoal(*export)
    assert status == 1
    assert "is there already. Name another folder with --to" in err
    assert "step 2," in str(verify_path(folder)[0])
    assert shoal(*export, "--force")[0] == 0
    assert "step 4," in str(verify_path(folder)[0])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").touch()
    status, _, err = shoal("export", "chat", "--adapter", "--to", str(home), "--force")
    assert status == 1
    assert "was not exported by shoal, and --force would delete what is in it" in err
    assert (home / "thesis.tex").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left")])
def test_nothing_is_left_of_what_fails(
    shoal: Shoal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(exporting, "seal", fail)
    status, _, err = shoal("export", "chat", "--merged", "--to", str(tmp_path / "deep" / "out"))
    assert status == (130 if error is KeyboardInterrupt else 1)
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


CONVERTER = """
import sys
folder, file = sys.argv[1], sys.argv[sys.argv.index("--outfile") + 1]
open(folder + "/model.safetensors").close()
{end}
"""
WRITES = 'open(file, "wb").write(b"GGUF" + bytes([3, 0, 0, 0, 9]) + bytes(99))'


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (WRITES, None),
        ('open(file, "wb").write(b"GGUF")', "ended well, but"),
        ('sys.exit("no such architecture")', "failed with status 1: no such architecture"),
    ],
)
def test_a_converter_makes_a_gguf_file(shoal: Shoal, tmp_path: Path, end: str, told: str | None):
    """The call, and what is done with what comes of it; the real converter is llama.cpp's."""
    script = tmp_path / "convert.py"
    script.write_text(CONVERTER.format(end=end))
    converter = shlex.join([sys.executable, str(script)])
    folder = tmp_path / "out"
    options = ["--quantize", "q8_0", "--converter", converter, "--to", str(folder)]
    status, out, err = shoal("export", "chat", "--gguf", *options)
    if told is None:
        assert status == 0, err
        assert out.endswith(f"Exported step 4 to {folder}/chat-q8_0.gguf\n")
        assert sorted(path.name for path in folder.iterdir()) == [
            "README.md",
            "chat-q8_0.gguf",
            "manifest.json",
            "recipe.yaml",
        ]
        assert "exported GGUF file of step 4" in str(verify_path(folder)[0])
    else:
        assert status == 1
        assert told in err and err.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["convert.py"]


def test_without_a_converter_it_is_said_what_to_type(
    shoal: Shoal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = tmp_path / "out"
    status, _, err = shoal("export", "chat", "--gguf", "--to", str(folder))
    assert status == 1
    assert err.startswith("shoal: error: there is no GGUF file yet: convert_hf_to_gguf.py of llama")
    assert f"convert_hf_to_gguf.py {folder} --outfile chat-bf16.gguf --outtype bf16" in err
    assert "exported merged model" in str(verify_path(folder)[0])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["chat"], "say what to export: --adapter, --merged or --gguf"),
        (["chat", "--adapter", "--merged"], "say what to export"),
        (["chat", "--adapter", "--dtype", "bfloat16"], "--dtype bfloat16: is for --merged"),
        (["chat", "--merged", "--quantize", "q8_0"], "--quantize q8_0: is for --gguf"),
        (
            ["chat", "--gguf", "--quantize", "q4_k_m"],
            "llama-quantize FILE.gguf SMALLER.gguf Q4_K_M",
        ),
        (["chat", "--gguf", "--converter", "no/such"], "--converter no/such: is no command"),
        (["chat", "--merged", "--max-shard-size", "5 apples"], "5 apples: is no size"),
        (["chat", "--adapter", "--base-model", "/home/me"], "--base-model /home/me: is no hub id"),
        (
            ["chat", "--adapter", "--to", "s3://bucket/x"],
            "--to s3://bucket/x: can only be a folder",
        ),
        (["labels", "--gguf"], "labels is a sequence_classification"),
    ],
)
def test_a_wrong_command_line_is_told(shoal: Shoal, arguments: list[str], told: str):
    status, _, err = shoal("export", *arguments)
    assert status == 2
    assert told in err
    assert err.count("\n") == 1


def test_labels_that_are_not_known_any_more(shoal: Shoal, tmp_path: Path):
    options = [f"storage.cache={tmp_path / 'none'}", "--to", str(tmp_path / "out")]
    status, _, err = shoal("export", "labels", "--merged", *options)
    assert status == 1
    assert "the names of its labels lie with the prepared data, which is not in" in err
    assert shoal("export", "labels", "--adapter", *options)[0] == 0
    assert "Its numbers were not at hand" in (tmp_path / "out" / "README.md").read_text()


def test_a_run_at_an_address(shoal: Shoal, root: Path, tmp_path: Path, bucket: str):
    address = join(bucket, "runs/chat")
    mirror = ObjectMirror(tmp_path / "there", address)
    assert mirror.take("me")
    shutil.copytree(root / "runs" / "chat", tmp_path / "there", dirs_exist_ok=True)
    mirror.push("recipe.yaml", "metrics.jsonl", "evaluation")
    mirror.push_checkpoint(tmp_path / "there" / "checkpoints" / "step_000004")
    options = [f"storage.cache={tmp_path / 'cache'}", "--adapter", "--to", str(tmp_path / "out")]
    status, _, err = shoal("export", address, *options)
    assert status == 0, err
    assert "# chat\n" in (tmp_path / "out" / "README.md").read_text()
    assert verify_path(tmp_path / "out")[0].whole
