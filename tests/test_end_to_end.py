"""The whole chain with a tiny model, through the command a person types."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SHOAL = str(Path(sys.executable).parent / "shoal")

RECIPE = """
description: A tiny model learns which of two words to say.
base: {{source: {base}, dtype: float32}}
data:
  train: train.jsonl
  held_out: held_out.jsonl
  sequence_length: 64
adapter: {{r: 4, alpha: 8, targets: [q_proj, v_proj]}}
train: {{steps: {steps}, global_batch_size: 8, micro_batch_size: 2, learning_rate: 1e-2}}
cluster: {{workers: 2}}
checkpoint: {{every_steps: 4}}
evaluate: {{choices: [w1, w2], max_new_tokens: 4}}
storage: {{cache: cache}}
"""


def write_rows(file: Path, numbers: range) -> None:
    rows = [{"text": f"w{n % 90 + 5} w{n // 90}", "label": f"w{n % 2 + 1}"} for n in numbers]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def workplace(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its rows, and a finished run."""
    folder = tmp_path_factory.mktemp("workplace")
    write_rows(folder / "train.jsonl", range(64))
    write_rows(folder / "held_out.jsonl", range(200, 220))
    (folder / "tiny.yaml").write_text(RECIPE.format(base=llama, steps=8))
    return folder


def shoal(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SHOAL, *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def first(workplace: Path) -> subprocess.CompletedProcess[str]:
    return shoal(workplace, "run", "tiny.yaml")


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_ends_with_what_to_know(workplace: Path, first: subprocess.CompletedProcess[str]):
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    text = first.stdout
    assert "Prepared 64 training samples in 64 sequences" in text
    assert "On 20 held-out samples" in text
    assert "The adapter lies in runs/tiny/checkpoints/step_000008/adapter" in text
    assert f'{SHOAL} generate runs/tiny "..."' in text  # which is not on the PATH here
    for noise in ("Warning", "WARNING", "INFO", "[Train]", "it/s"):
        assert noise not in text


def test_a_run_folder_holds_its_story(workplace: Path, first: subprocess.CompletedProcess[str]):
    run = workplace / "runs" / "tiny"
    assert [line["step"] for line in metrics(run)] == list(range(1, 9))
    events = [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]
    assert events == [
        "started",
        "prepared",
        "evaluated",
        "checkpoint",
        "checkpoint",
        "evaluated",
        "finished",
    ]
    ledger = (run / "ledger" / "samples.jsonl").read_text().splitlines()
    seen = [sample for line in ledger for sample in json.loads(line)["samples"]]
    assert len(set(seen)) == len(seen) == 64  # 8 steps of 8 are one epoch
    assert "train.jsonl" in (run / "recipe.yaml").read_text()
    before = json.loads((run / "evaluation" / "before.json").read_text())
    after = json.loads((run / "evaluation" / "after.json").read_text())
    assert after["scores"]["loss"] < before["scores"]["loss"]
    assert len((run / "evaluation" / "predictions.jsonl").read_text().splitlines()) == 20
    assert after["answers"][0]["right"] in ("w1", "w2")
    assert {file.name for file in (run / "logs").iterdir()} == {"rank_000.log", "rank_001.log"}
    weights = [file for file in run.rglob("*.safetensors") if "trainer_state" not in str(file)]
    assert {file.parent.name for file in weights} == {"adapter"}


def test_evaluating_again_gives_the_same(workplace: Path, first: subprocess.CompletedProcess[str]):
    after = (workplace / "runs" / "tiny" / "evaluation" / "after.json").read_text()
    again = shoal(workplace, "eval", "tiny")
    assert again.returncode == 0, again.stderr
    assert (workplace / "runs" / "tiny" / "evaluation" / "after.json").read_text() == after
    assert "Data was prepared before, nothing to do" in again.stdout


def test_the_adapter_answers(workplace: Path, first: subprocess.CompletedProcess[str]):
    answered = shoal(workplace, "generate", "tiny", "w5 w0", "--max-new-tokens", "3")
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.strip()
    base = shoal(workplace, "generate", "tiny", "w5 w0", "--max-new-tokens", "3", "--base")
    assert base.returncode == 0, base.stderr
    assert base.stdout != answered.stdout


def test_ctrl_c_saves_and_resuming_ends_as_if_nothing_had_been(
    workplace: Path, first: subprocess.CompletedProcess[str]
):
    (workplace / "long.yaml").write_text((workplace / "tiny.yaml").read_text())
    steps = ["train.steps=400", "checkpoint.every_steps=1000", "evaluate.before=false"]
    straight = shoal(workplace, "run", "long.yaml", *steps, "name=straight")
    assert straight.returncode == 0, straight.stderr
    process = subprocess.Popen(
        [SHOAL, "run", "long.yaml", *steps],
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    run = workplace / "runs" / "long"
    wait_for(lambda: (run / "metrics.jsonl").exists() and len(metrics(run)) > 5, process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert "Stopping after this step" in output, output
    assert "resume runs/long" in output
    assert process.returncode == 130
    stopped_at = len(metrics(run))
    assert 5 < stopped_at < 400
    assert [entry.name for entry in (run / "checkpoints").iterdir()] == [f"step_{stopped_at:06d}"]
    resumed = shoal(workplace, "run", "long.yaml", *steps, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"step_{stopped_at:06d}" in resumed.stdout
    expected = [line["loss"] for line in metrics(workplace / "runs" / "straight")]
    assert [line["loss"] for line in metrics(run)] == expected


def wait_for(ready: object, process: subprocess.Popen[str]) -> None:
    """Wait until something is so; a test that waits in vain ends with pytest's timeout."""
    while not ready():  # type: ignore[operator]
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.02)


def test_another_recipe_cannot_resume(workplace: Path, first: subprocess.CompletedProcess[str]):
    found = shoal(workplace, "run", "tiny.yaml", "train.learning_rate=1e-3", "--resume")
    assert found.returncode == 1
    assert "cannot be resumed with another recipe: train.learning_rate = 0.001 (was 0.01)" in (
        found.stderr
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("adapter.targets=[q_prj]", "matches no module of the base. Did you mean q_proj"),
        ("adapter.last_layers=9", "the base has 3 layers"),
        ("data.train=nowhere.jsonl", "nowhere.jsonl: there is no such file"),
        ("base.source=/nowhere", "base.source = /nowhere: there is no such folder"),
        ("storage.path=/proc/runs", "cannot be written"),
        ("cluster.workers=500", "At most"),
        ("cluster.device=gpu", "the cluster has 0 GPUs"),
        ("data.text_column=body", "none of 84 rows can be trained on (84 no known column)"),
        ("data.sequence_length=5", "rows can be trained on"),
        ("base.revision=main", "a folder has no revision"),
    ],
)
def test_bad_input_gets_one_clear_line_and_leaves_nothing(
    workplace: Path, first: subprocess.CompletedProcess[str], override: str, said: str
):
    before = sorted(str(path) for path in (workplace / "runs").iterdir())
    prepared = sorted((workplace / "cache" / "prepared").iterdir())
    found = shoal(workplace, "run", "tiny.yaml", override)
    assert found.returncode in (1, 2)
    assert said in found.stderr
    assert "Traceback" not in found.stderr + found.stdout
    assert sorted(str(path) for path in (workplace / "runs").iterdir()) == before
    assert sorted((workplace / "cache" / "prepared").iterdir()) == prepared


def test_a_folder_without_weights(workplace: Path, llama: Path):
    bare = workplace / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((llama / "config.json").read_text())
    found = shoal(workplace, "run", "tiny.yaml", f"base.source={bare}")
    assert found.returncode == 1
    assert f"{bare}: holds no weights (*.safetensors or pytorch_model*.bin)" in found.stderr
