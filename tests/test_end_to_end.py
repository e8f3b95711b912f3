"""The whole chain with a tiny model, through the command a person types."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from chaos.workplace import name_of

from launcher.records.runs import read_events
from support.commands import Here, give
from trainer.ledger import read_ledger
from trainer.metrics import read_steps

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
        [SHOAL, *arguments], cwd=folder, capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="module")
def first(workplace: Path) -> subprocess.CompletedProcess[str]:
    return shoal(workplace, "run", "tiny.yaml")


def metrics(run: Path) -> list[dict]:
    return read_steps(run / "metrics.jsonl")


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
    # A busy machine may have a rank wait for five seconds, which is told.
    lines = [event["event"] for event in read_events(run) if event["event"] != "late"]
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


def test_evaluating_again_gives_the_same(
    workplace: Path, first: subprocess.CompletedProcess[str], here: Here
):
    after = (workplace / "runs" / "tiny" / "evaluation" / "after.json").read_text()
    again = here("eval", "tiny")
    assert again.returncode == 0, again.stderr
    assert (workplace / "runs" / "tiny" / "evaluation" / "after.json").read_text() == after
    assert "Data was prepared before, nothing to do" in again.stdout


def test_the_adapter_answers(workplace: Path, first: subprocess.CompletedProcess[str], here: Here):
    answered = shoal(workplace, "generate", "tiny", "w5 w0", "--max-new-tokens", "3")
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.strip()
    base = here("generate", "tiny", "w5 w0", "--max-new-tokens", "3", "--base")
    assert base.returncode == 0
    assert base.stdout != answered.stdout


def wait_for(ready: object, process: subprocess.Popen[str]) -> None:
    """Wait until something is so; a test that waits in vain ends with pytest's timeout."""
    while not ready():  # type: ignore[operator]
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.02)


def test_another_recipe_cannot_resume(first: subprocess.CompletedProcess[str], here: Here):
    found = here("run", "tiny.yaml", "train.learning_rate=1e-3", "--resume")
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
    workplace: Path,
    first: subprocess.CompletedProcess[str],
    here: Here,
    override: str,
    said: str,
):
    before = sorted(str(path) for path in (workplace / "runs").iterdir())
    prepared = sorted((workplace / "cache" / "prepared").iterdir())
    found = here("run", "tiny.yaml", override)
    assert found.returncode in (1, 2)
    assert said in found.stderr
    assert "Traceback" not in found.stderr + found.stdout
    assert sorted(str(path) for path in (workplace / "runs").iterdir()) == before
    assert sorted((workplace / "cache" / "prepared").iterdir()) == prepared


def test_a_folder_without_weights(workplace: Path, llama: Path, here: Here):
    bare = workplace / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((llama / "config.json").read_text())
    found = here("run", "tiny.yaml", f"base.source={bare}")
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
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in name_of(child)]


def events(run: Path, kind: str) -> list[dict]:
    return [event for event in read_events(run) if event["event"] == kind]


LONG = ["train.steps=300", "evaluate.before=false"]


@pytest.fixture(scope="module")
def straight(workplace: Path, first: subprocess.CompletedProcess[str], local_ray: None) -> Path:
    """A long run that was left alone."""
    arguments = [*LONG, "checkpoint.every_steps=20"]
    assert give(workplace, "run", "tiny.yaml", "name=alone", *arguments) == 0
    return workplace / "runs" / "alone"


@dataclass(frozen=True, slots=True)
class Stop:
    """What a command printed that was stopped, its exit status, and the run's last step then."""

    output: str
    status: int
    step: int


Stops = tuple[Path, dict[str, Stop]]


@pytest.fixture(scope="module")
def stopped(workplace: Path, first: subprocess.CompletedProcess[str]) -> Stops:
    """The same run, stopped in two ways, one after another."""
    run = workplace / "runs" / "asked"
    begin = ["run", "tiny.yaml", "name=asked", *LONG, "checkpoint.every_steps=1000"]
    found: dict[str, Stop] = {}

    def stop(how: str, arguments: list[str], send: Callable[[subprocess.Popen[str]], None]) -> None:
        done = len(metrics(run))
        process = start(workplace, *arguments)
        wait_for(lambda: len(metrics(run)) > done + 5, process)
        send(process)
        output, _ = process.communicate(timeout=900)
        assert process.returncode != 0, output
        found[how] = Stop(output, process.returncode, len(metrics(run)))

    # A terminal's goes to all processes; SLURM can be told to send its own to the command alone.
    stop("ctrl-c", begin, lambda process: os.killpg(process.pid, signal.SIGINT))
    stop("preempted", ["resume", "asked"], lambda process: process.send_signal(signal.SIGUSR1))
    return run, found


@pytest.fixture(scope="module")
def preempted(stopped: Stops) -> Path:
    return stopped[0]


def test_a_time_limit_is_kept_without_a_signal(
    workplace: Path,
    first: subprocess.CompletedProcess[str],
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
):
    """SLURM tells a job when it will be ended; here that is as soon as it trains."""
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 1))
    found = here("run", "tiny.yaml", "name=limited", *LONG, "checkpoint.every_steps=1000")
    assert found.returncode == 75, found.stderr
    assert "The time limit is near" in found.stdout + found.stderr
    run = workplace / "runs" / "limited"
    done = len(metrics(run))
    assert 0 < done < 300
    assert events(run, "stopping")[0]["why"] == "deadline"
    assert [event["step"] for event in events(run, "checkpoint")] == [done]


def test_ctrl_c_saves_and_resuming_goes_on_as_if_nothing_had_been(straight: Path, stopped: Stops):
    run, stops = stopped
    stop = stops["ctrl-c"]
    assert stop.status == 130, stop.output
    assert "Stopping after this step" in stop.output
    assert "resume runs/asked" in stop.output
    assert 5 < stop.step < 300
    assert f"step_{stop.step:06d}" in stops["preempted"].output
    losses = [line["loss"] for line in metrics(run)][: stops["preempted"].step]
    assert losses == [line["loss"] for line in metrics(straight)][: len(losses)]


def test_whenever_it_is_stopped_it_saves_once(stopped: Stops):
    run, stops = stopped
    saved = sorted(event["step"] for event in events(run, "checkpoint") if event["step"] < 300)
    assert saved == [stop.step for stop in stops.values()]
    assert [event["step"] for event in events(run, "stopped") if "step" in event] == saved


def test_a_scheduler_is_told_to_continue_the_run(stopped: Stops, here: Here):
    """It goes on on one worker, another stage and in other pieces, with the same samples."""
    run, stops = stopped
    stop = stops["preempted"]
    assert stop.status == 75, stop.output
    assert "Asked to give the machine back" in stop.output
    assert "resume runs/asked" in stop.output
    assert stops["ctrl-c"].step + 5 < stop.step < 300
    changes = ["cluster.workers=1", "zero.stage=2", "train.micro_batch_size=4"]
    resumed = here("resume", "asked", *changes, "train.steps=300")
    assert resumed.returncode == 0, resumed.stderr
    assert f"step_{stop.step:06d}" in resumed.stdout
    assert [line["step"] for line in metrics(run)] == list(range(1, 301))
    told = here("ledger", "asked")
    assert told.returncode == 0
    assert told.stdout.startswith("300 steps in 3 attempts; 64 rows an epoch")
    assert "epoch 37: 64 rows, 64 samples, each once" in told.stdout
    one = here("ledger", "asked", "--step", "7")
    sample = one.stdout.splitlines()[1].split(": ")[1]
    found = here("ledger", "asked", "--sample", sample)
    assert "step 7" in found.stdout
    assert "<|assistant|>" in found.stdout  # its text


def test_what_changes_the_mathematics_needs_a_fork(workplace: Path, preempted: Path, here: Here):
    refused = here("resume", "asked", "train.learning_rate=1e-3", "seed=5")
    assert refused.returncode == 1
    assert "train.learning_rate = 0.001 (was 0.01)" in refused.stderr
    assert "seed = 5 (was 0)" in refused.stderr
    assert "--fork" in refused.stderr
    steps = len(metrics(preempted))
    fork = ["train.learning_rate=1e-3", "name=forked", f"train.steps={steps + 10}"]
    forked = here("resume", "asked", "--fork", *fork)
    assert forked.returncode == 0, forked.stderr
    run = workplace / "runs" / "forked"
    assert [line["step"] for line in metrics(run)] == list(range(1, steps + 11))
    assert [line["loss"] for line in metrics(run)][:steps] == [
        line["loss"] for line in metrics(preempted)
    ]
    assert metrics(run)[-1]["learning_rate"] < 1e-3
    assert len(metrics(preempted)) == steps  # the first run is left alone
    assert here("ledger", "forked").returncode == 0


def test_other_data_cannot_go_on(workplace: Path, preempted: Path, here: Here):
    rows = (workplace / "train.jsonl").read_text()
    try:
        (workplace / "train.jsonl").write_text(rows.replace("w9", "w8"))
        found = here("resume", "asked")
    finally:
        (workplace / "train.jsonl").write_text(rows)
    assert found.returncode == 1
    assert "was trained on other data" in found.stderr


def test_two_cannot_drive_one_run(workplace: Path, preempted: Path):
    from launcher.records import runs
    from recipes.errors import StorageError

    busy = pytest.raises(StorageError, match="another shoal is running it")
    with runs.locked(preempted), busy, runs.locked(preempted):
        pass


@pytest.fixture(scope="module")
def hit(workplace: Path, first: subprocess.CompletedProcess[str]) -> tuple[Path, str, list[int]]:
    """A run of which a rank was killed, and then one stopped: what was printed, and their pids."""
    arguments = [*LONG, "checkpoint.every_steps=20", "failure.hang_s=20"]
    process = start(workplace, "run", "tiny.yaml", "name=hit", *arguments)
    run = workplace / "runs" / "hit"
    wait_for(lambda: len(metrics(run)) > 30, process)
    killed = ranks_of(process)[-1]
    killed.kill()
    wait_for(lambda: len(events(run, "attempt")) == 2, process)
    done = len(metrics(run))
    wait_for(lambda: len(metrics(run)) > done + 40, process)
    stood = ranks_of(process)[-1]
    stood.suspend()
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return run, output, [killed.pid, stood.pid]


def test_a_killed_and_a_stopped_worker_change_nothing(
    straight: Path, hit: tuple[Path, str, list[int]]
):
    """The run gets over it by itself, and ends bit for bit as one that was left alone."""
    run, output, _ = hit
    assert "died (its process was killed or crashed): going on from step" in output
    faults = [(fault["kind"], fault["action"]) for fault in events(run, "fault")]
    assert faults == [("worker", "restart"), ("hang", "restart")]
    assert [line["loss"] for line in metrics(run)] == [line["loss"] for line in metrics(straight)]
    for name in ("adapter/adapter_model.safetensors", "trainer_state/state.safetensors"):
        last = Path("checkpoints") / "step_000300" / name
        assert (run / last).read_bytes() == (straight / last).read_bytes()


def test_a_stopped_worker_is_named_with_its_stack(hit: tuple[Path, str, list[int]]):
    run, output, (_, pid) = hit
    *_, late = (late for late in events(run, "late") if late["pid"] == pid)
    assert late["status"] == "stopped"
    # Within three steps, of hundredths of a second each, and ten seconds.
    assert late["limit_s"] < 3 * 0.5 + 10
    stack = Path(late["stack"]).read_text()
    assert "work (trainer/worker.py" in stack
    assert f"(process {pid}) is late by" in output
