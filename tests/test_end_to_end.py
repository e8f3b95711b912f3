"""The whole chain with a tiny model, through the command a person types."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from trainer.ledger import read_ledger

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
checkpoint: {{every_steps: 4, prove: false}}
evaluate: {{choices: [w1, w2], max_new_tokens: 4}}
storage: {{cache: cache}}
"""


def write_rows(file: Path, numbers: range) -> None:
    rows = [{"text": f"w{n % 90 + 5} w{n // 90}", "label": f"w{n % 2 + 1}"} for n in numbers]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_workplace(folder: Path, llama: Path) -> Path:
    """A folder with a recipe and its rows."""
    write_rows(folder / "train.jsonl", range(64))
    write_rows(folder / "held_out.jsonl", range(200, 220))
    (folder / "tiny.yaml").write_text(RECIPE.format(base=llama, steps=8))
    return folder


@pytest.fixture(scope="module")
def workplace(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("workplace"), llama)


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
    lines = [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]
    assert lines[:5] == ["started", "prepared", "attempt", "evaluated", "checkpoint"]
    assert sorted(lines[5:7]) == ["checkpoint", "evaluated"]  # saved while it was measured
    assert lines[7:] == ["memory", "finished"]
    entries = read_ledger(run / "ledger").entries
    seen = [sample for entry in entries for ids in entry.samples for sample in ids]
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
        ("cluster.workers=500", "has 4 micro-batches of 2; more workers would have nothing to do"),
        ("cluster.cpus_per_worker=500", "At most 0 such workers fit"),
        ("cluster.device=gpu", "the cluster has 0 GPUs"),
        ("data.columns={text: body}", "none of 84 rows can be trained on (84 no known column)"),
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
    assert f"{bare}: holds no weights (*.safetensors); found: config.json" in found.stderr


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [SHOAL, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "RayTrainWorker" in "".join(child.cmdline())
    ]


def events(run: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


@pytest.fixture(scope="module")
def preempted(workplace: Path, first: subprocess.CompletedProcess[str]) -> Path:
    """A run that a scheduler asked to give its machine back, in its middle."""
    arguments = ["train.steps=300", "checkpoint.every_steps=50", "evaluate.before=false"]
    process = start(workplace, "run", "tiny.yaml", "name=asked", *arguments)
    run = workplace / "runs" / "asked"
    wait_for(lambda: (run / "metrics.jsonl").exists() and len(metrics(run)) > 60, process)
    # SLURM can be told to send it some time before the limit.
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert "Asked to give the machine back" in output
    assert "resume runs/asked" in output
    return run


def test_a_scheduler_is_told_to_continue_the_run(workplace: Path, preempted: Path):
    """It goes on on one worker, another stage and in other pieces, with the same samples."""
    stopped_at = len(metrics(preempted))
    assert 60 < stopped_at < 300
    assert events(preempted, "stopped")[0]["step"] == stopped_at
    changes = ["cluster.workers=1", "zero.stage=2", "train.micro_batch_size=4"]
    resumed = shoal(workplace, "resume", "asked", *changes, "train.steps=300")
    assert resumed.returncode == 0, resumed.stderr
    assert f"step_{stopped_at:06d}" in resumed.stdout
    assert [line["step"] for line in metrics(preempted)] == list(range(1, 301))
    told = shoal(workplace, "ledger", "asked")
    assert told.returncode == 0
    assert told.stdout.startswith("300 steps in 2 attempts; 64 rows an epoch")
    assert "epoch 37: 64 rows, 64 samples, each once" in told.stdout
    one = shoal(workplace, "ledger", "asked", "--step", "7")
    sample = one.stdout.splitlines()[1].split(": ")[1]
    found = shoal(workplace, "ledger", "asked", "--sample", sample)
    assert "step 7" in found.stdout
    assert "<|assistant|>" in found.stdout  # its text


def test_a_time_limit_is_kept_without_a_signal(
    workplace: Path, first: subprocess.CompletedProcess[str], monkeypatch: pytest.MonkeyPatch
):
    """SLURM tells a job when it will be ended; here that is as soon as it trains."""
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 1))
    found = shoal(workplace, "run", "tiny.yaml", "name=limited", "train.steps=100000")
    assert found.returncode == 75, found.stdout + found.stderr
    assert "The time limit is near" in found.stdout
    run = workplace / "runs" / "limited"
    assert len(metrics(run)) < 100000
    assert events(run, "stopping")[0]["why"] == "deadline"
    saved = sorted(folder.name for folder in (run / "checkpoints").iterdir())[-1]
    assert saved == f"step_{len(metrics(run)):06d}"


def test_what_changes_the_mathematics_needs_a_fork(workplace: Path, preempted: Path):
    refused = shoal(workplace, "resume", "asked", "train.learning_rate=1e-3", "seed=5")
    assert refused.returncode == 1
    assert "train.learning_rate = 0.001 (was 0.01)" in refused.stderr
    assert "seed = 5 (was 0)" in refused.stderr
    assert "--fork" in refused.stderr
    steps = len(metrics(preempted))
    fork = ["train.learning_rate=1e-3", "name=forked", f"train.steps={steps + 10}"]
    forked = shoal(workplace, "resume", "asked", "--fork", *fork)
    assert forked.returncode == 0, forked.stderr
    run = workplace / "runs" / "forked"
    assert [line["step"] for line in metrics(run)] == list(range(1, steps + 11))
    assert [line["loss"] for line in metrics(run)][:steps] == [
        line["loss"] for line in metrics(preempted)
    ]
    assert metrics(run)[-1]["learning_rate"] < 1e-3
    assert len(metrics(preempted)) == steps  # the first run is left alone
    assert shoal(workplace, "ledger", "forked").returncode == 0


def test_other_data_cannot_go_on(workplace: Path, preempted: Path):
    rows = (workplace / "train.jsonl").read_text()
    try:
        (workplace / "train.jsonl").write_text(rows.replace("w9", "w8"))
        found = shoal(workplace, "resume", "asked")
    finally:
        (workplace / "train.jsonl").write_text(rows)
    assert found.returncode == 1
    assert "was trained on other data" in found.stderr


def test_two_cannot_drive_one_run(workplace: Path, preempted: Path):
    from launcher import runs
    from recipes.errors import StorageError

    busy = pytest.raises(StorageError, match="another shoal is running it")
    with runs.locked(preempted), busy, runs.locked(preempted):
        pass


def test_a_killed_worker_changes_nothing(workplace: Path, first: subprocess.CompletedProcess[str]):
    """The run gets over it by itself, and ends bit for bit as one that was left alone."""
    arguments = ["train.steps=200", "checkpoint.every_steps=20", "evaluate.before=false"]
    straight = shoal(workplace, "run", "tiny.yaml", "name=alone", *arguments)
    assert straight.returncode == 0, straight.stderr
    process = start(workplace, "run", "tiny.yaml", "name=hit", *arguments)
    run = workplace / "runs" / "hit"
    wait_for(lambda: (run / "metrics.jsonl").exists() and len(metrics(run)) > 30, process)
    ranks_of(process)[-1].kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "died (its process was killed or crashed): going on from step" in output
    (fault,) = events(run, "fault")
    assert fault["kind"] == "worker"
    assert fault["action"] == "restart"
    alone = workplace / "runs" / "alone"
    assert [line["loss"] for line in metrics(run)] == [line["loss"] for line in metrics(alone)]
    for name in ("adapter/adapter_model.safetensors", "trainer_state/state.safetensors"):
        last = Path("checkpoints") / "step_000200" / name
        assert (run / last).read_bytes() == (alone / last).read_bytes()


def test_a_stopped_worker_is_named_with_its_stack(
    workplace: Path, first: subprocess.CompletedProcess[str]
):
    arguments = ["train.steps=150", "checkpoint.every_steps=10", "failure.hang_s=8"]
    process = start(
        workplace, "run", "tiny.yaml", "name=stood", "evaluate.before=false", *arguments
    )
    run = workplace / "runs" / "stood"
    wait_for(lambda: (run / "metrics.jsonl").exists() and len(metrics(run)) > 20, process)
    stopped = ranks_of(process)[-1]
    stopped.suspend()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    (late,) = events(run, "late")
    assert late["pid"] == stopped.pid
    assert late["status"] == "stopped"
    # Within three steps, of hundredths of a second each, and ten seconds.
    assert late["limit_s"] < 3 * 0.5 + 10
    stack = Path(late["stack"]).read_text()
    assert "work (trainer/worker.py" in stack
    assert f"(process {stopped.pid}) is late by" in output
    (fault,) = events(run, "fault")
    assert fault["kind"] == "hang"
    assert len(metrics(run)) == 150
