"""Variables of the shell are named, and secrets written nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.environment import assigned_secret, is_secret, secrets, values
from recipes.errors import RecipeError
from recipes.load import load

SECRET = "hf_aBcD1234"
RECIPE = "base: {source: org/model}\ndata: {train: [rows.jsonl]}\ntrain: {steps: 1}\n"


def write(folder: Path, text: str) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(RECIPE + text)
    return file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"cluster: {{env: [HF_HOME, HF_TOKEN={SECRET}]}}", "item 2 is no name of a variable"),
        (f"cluster: {{env: [{SECRET}]}}", "item 1 is no name of a variable"),
        (f"slurm: {{setup: ['export HF_TOKEN={SECRET}']}}", r"cluster.env: \[HF_TOKEN\]"),
        (f"slurm: {{setup: ['API_KEY=\"{SECRET}\" true']}}", r"cluster.env: \[API_KEY\]"),
        (f"slurm: {{extra: ['--export=HF_TOKEN={SECRET}']}}", "Set cluster.env"),
        ("description: ${oc.env:HF_TOKEN}", "would write the value of HF_TOKEN"),
    ],
)
def test_a_recipe_holds_names_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with pytest.raises(RecipeError, match=said) as error:
        load(write(tmp_path, text))
    assert SECRET not in str(error.value)


def test_what_is_no_secret_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROJECT", "fish")
    setup = "slurm: {setup: ['export TOKENIZERS_PARALLELISM=false HF_TOKEN=$(cat ~/.token)']}\n"
    recipe = load(write(tmp_path, setup + "description: ${oc.env:PROJECT}")).recipe
    assert recipe.description == "fish"


def test_names_that_are_taken_for_secrets():
    named = ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "my_password", "OPENAI_KEY"]
    assert all(map(is_secret, named))
    plain = ["PATH", "HF_HOME", "TOKENIZERS_PARALLELISM", "KRB5CCNAME", "KEYBOARD", "MONKEY_ISLAND"]
    assert not any(map(is_secret, plain))
    assert assigned_secret("module load cuda; export WANDB_API_KEY=abc") == "WANDB_API_KEY"
    assert assigned_secret("export WANDB_API_KEY=$OTHER") is None


def test_the_shell_is_asked_by_name():
    shell = {"HF_TOKEN": SECRET, "API_KEY": "other", "PATH": "/bin"}
    assert values(["HF_TOKEN"], shell) == {"HF_TOKEN": SECRET}
    assert secrets(["HF_TOKEN"], shell) == ["API_KEY"]
    with pytest.raises(RecipeError, match="WANDB_MODE: not set in this shell"):
        values(["PATH", "WANDB_MODE"], shell)
