"""`shoal generate`, `compare` and `combine`, and how adapters are named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from adapters.checkpoint_folder import verify
from adapters.mirror import open_mirror
from launcher.cli import app
from launcher.using.chosen import choose, opening_of
from recipes.errors import CheckpointError, ShoalError
from support import tiny, used


@pytest.fixture(scope="module")
def storage(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `one`, with two checkpoints, and `two`; and a classification, `labels`."""
    storage = tmp_path_factory.mktemp("using") / "runs"
    used.make_run(storage, "one", llama, step=4, seed=1)
    used.make_run(storage, "one", llama, step=7, seed=2, more="description: mine\n")
    used.make_run(storage, "two", llama, seed=3)
    return storage


@pytest.fixture
def here(storage: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(storage.parent)
    return storage.parent


def shoal(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def fails(*arguments: str) -> str:
    """What a person is told instead."""
    found = shoal(*arguments)
    assert isinstance(found.exception, ShoalError), found.output
    return str(found.exception)


def test_adapters_by_many_names(here: Path):
    step = here / "runs/one/checkpoints/step_000004"
    found = choose(["one", "one@4", "two", str(here / "runs/one"), str(step), f"{step}/adapter"],
                   (), print)  # fmt: skip
    assert [
        (chosen.name, chosen.folder.parent.parent.name, chosen.folder.name) for chosen in found
    ] == [
        ("one", "one", "step_000007"),
        ("one@4", "one", "step_000004"),
        ("two", "two", "step_000007"),
        ("one-2", "one", "step_000007"),
        ("one@4-2", "one", "step_000004"),
        ("one@4-3", "one", "step_000004"),
    ]
    assert found[1].recipe.description == "mine"


def test_names_that_lead_nowhere(here: Path, tmp_path: Path):
    with pytest.raises(
        CheckpointError, match=r"one/?: has no checkpoint of step 5. .* those of 4, 7"
    ):
        choose(["one@5"], (), print)
    with pytest.raises(CheckpointError, match=r"onee: there is no such run\. Did you mean one\?"):
        choose(["onee@4"], (), print)
    foreign = Path(
        shutil.copytree(here / "runs/one/checkpoints/step_000004/adapter", tmp_path / "x")
    )
    with pytest.raises(CheckpointError, match=r"x: holds an adapter without a manifest\.json"):
        choose([str(foreign)], (), print)
    lost = Path(shutil.copytree(here / "runs/one/checkpoints/step_000004", tmp_path / "a/b/lost"))
    with pytest.raises(CheckpointError, match=r"lost: there is no recipe\.yaml in it"):
        choose([str(lost)], (), print)


def test_a_torn_newest_checkpoint_is_passed_over_and_told(here: Path, tmp_path: Path):
    run = Path(shutil.copytree(here / "runs/one", tmp_path / "one"))
    (run / "checkpoints/step_000007/adapter/adapter_config.json").write_text("{}")
    told: list[str] = []
    [chosen] = choose([str(run)], (), told.append)
    assert chosen.folder.name == "step_000004"
    assert "step_000007/adapter/adapter_config.json: differs from what was saved" in told[0]
    torn = choose([f"{run}@7"], (), told.append)
    with pytest.raises(CheckpointError, match="differs from what was saved"):
        opening_of(torn[0].recipe, torn)


def test_a_run_on_object_storage(llama: Path, bucket: str, tmp_path: Path):
    run = used.make_run(tmp_path / "runs", "far", llama, step=4)
    used.make_run(tmp_path / "runs", "far", llama, step=7)
    mirror = open_mirror(run, f"{bucket}/far")
    mirror.push("recipe.yaml")
    for folder in sorted((run / "checkpoints").iterdir()):
        mirror.push_checkpoint(folder)
    shutil.rmtree(run)
    newest, earlier = choose([f"{bucket}/far", f"{bucket}/far@4"], (), print)
    assert (newest.name, newest.folder.name) == ("far", "step_000007")
    assert (earlier.name, earlier.folder.name) == ("far@4", "step_000004")
    with pytest.raises(CheckpointError, match=f"{bucket}/far.*step_000005"):
        choose([f"{bucket}/far@5"], (), print)


def test_generate_prints_the_answers_alone(here: Path):
    one, two, base = (
        shoal("generate", *arguments, "w5 w0", "--max-new-tokens", "4")
        for arguments in (["one"], ["two"], ["one", "--base"])
    )
    assert len({one.stdout, two.stdout, base.stdout}) == 3
    assert len(one.stdout.splitlines()) == 1
    both = shoal("generate", "one", "two", "w5 w0", "--max-new-tokens", "4")
    assert both.stdout == f"[one]\n{one.stdout}\n[two]\n{two.stdout}\n"
    system = shoal("generate", "one", "w5 w0", "--max-new-tokens", "4", "--system", "w9")
    assert system.stdout != one.stdout


def test_compare_gives_a_line_for_each_row(here: Path, tmp_path: Path):
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"text": "w5 w0", "label": "w1"}, {"no": 1}, {"text": "w7"}]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    arguments = ["compare", "one", "two", "--prompts", str(prompts), "--max-new-tokens", "4"]
    done = shoal(*arguments, "--to", str(tmp_path / "out.jsonl"))
    assert done.exit_code == 0, done.output
    assert "row 2: no known column" in done.stdout
    assert "of 1 are exactly right" in done.stdout
    made = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["row"] for line in made] == [1, 2, 3]
    assert list(made[0]["answers"]) == ["base", "one", "two"]
    assert made[0]["right"] == "w1"
    assert "error" in made[1]
    alone = shoal("generate", "two", "w5 w0", "--max-new-tokens", "4").stdout.strip()
    assert made[0]["answers"]["two"] == alone
    assert "is there already" in fails(*arguments, "--to", str(tmp_path / "out.jsonl"))


def test_a_combined_adapter_is_used_as_any_other(here: Path, llama: Path, tmp_path: Path):
    mix = tmp_path / "mix"
    done = shoal("combine", "one", "two", "--weights", "0.5,0.5", "--to", str(mix))
    assert done.exit_code == 0, done.output
    assert "by cat into" in done.stdout
    verify(mix)
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), str(mix))
    assert {"README.md", "recipe.yaml", "combination.json"} < {file.name for file in mix.iterdir()}
    told = json.loads((mix / "combination.json").read_text())
    assert [(part["name"], part["weight"]) for part in told["adapters"]] == [
        ("one", 0.5),
        ("two", 0.5),
    ]
    answers = shoal("generate", str(mix), "one", "w5 w0", "--max-new-tokens", "4").stdout
    assert answers.startswith("[mix]\n")
    assert "is there already" in fails("combine", "one", "two", "--to", str(mix))
    (mix / "adapter_model.safetensors").write_bytes(b"torn")
    assert "mix/adapter_model.safetensors: differs" in fails("generate", str(mix), "w5")


def test_wrong_combinations_write_nothing(here: Path, tmp_path: Path):
    to = ["--to", str(tmp_path / "mix")]
    assert "one adapter alone" in fails("combine", "one", *to)
    assert "are no numbers" in fails("combine", "one", "two", "--weights", "a,b", *to)
    assert "1 for 3 adapters" in fails("combine", "one", "two", "--weights", "0.5", "0.5", *to)
    assert "PEFT does not know it" in fails("combine", "one", "two", "--method", "mean", *to)
    assert list(tmp_path.iterdir()) == []


def test_another_base_is_refused_everywhere(here: Path, llama: Path, tmp_path: Path):
    other = tiny.make_llama(tmp_path / "other", seed=5)
    rows = tmp_path / "rows.txt"
    rows.write_text("w1\n")
    changed = ["--set", f"base.source={other}"]
    to = ["--to", str(tmp_path / "out")]
    for told in (
        fails("generate", "one", "w1", *changed),
        fails("chat", "one", *changed),
        fails("compare", "one", "--prompts", str(rows), *changed),
        fails("combine", "one", "two", *to, *changed),
        fails("predict", "one", str(rows), f"base.source={other}", *to),
    ):
        assert "was trained on" in told and str(other) in told
    used.make_run(tmp_path / "runs", "strange", other)
    told = fails("generate", "one", str(tmp_path / "runs/strange"), "w1")
    assert "strange" in told and f"was trained on {other}" in told
    assert not (tmp_path / "out").exists()
