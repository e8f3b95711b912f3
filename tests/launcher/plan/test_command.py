"""`shoal plan` as a person meets it, and a run's plan.json."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.plan.command import lines
from launcher.plan.comparison import compare
from launcher.plan.record import measure
from support import tiny

RECIPE = """
base: {{source: {base}, dtype: float32}}
data: {{train: train.jsonl, held_out_fraction: 0.1, sequence_length: 64}}
adapter: {{r: 4, alpha: 8, targets: [q_proj, v_proj]}}
train: {{epochs: 2, global_batch_size: 8, micro_batch_size: 2}}
cluster: {{workers: 2, device: cpu}}
storage: {{cache: cache}}
"""
COMMAND = (
    "import sys\n"
    "from launcher.cli import main\n"
    "try: main()\n"
    "except SystemExit as end: status = end.code\n"
    "heavy = {'torch', 'ray', 'transformers', 'deepspeed', 'peft', 'jieba'} & set(sys.modules)\n"
    "assert not heavy, heavy\n"
    "sys.exit(status)"
)


def plan(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """In a process that fails when it has imported anything heavy."""
    found = subprocess.run(
        [sys.executable, "-c", COMMAND, "plan", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == status, found.stderr
    return found


@pytest.fixture(scope="module")
def workplace(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    rows = [{"text": f"w{n} w{n + 1} w{n + 2}", "label": f"w{n % 2}"} for n in range(80)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tiny.yaml").write_text(RECIPE.format(base=llama))
    return folder


def test_a_recipe_is_planned_from_its_files_without_anything_heavy(workplace: Path):
    said = plan(workplace, "tiny.yaml").stdout
    assert "Length, estimated from the files; exact once `shoal prepare` has run" in said
    assert 'adapter.targets: ["q_proj", "v_proj"]  # recipe' in said
    assert "of about 72 sequences" in said
    assert "Verdict: fits\n" in said
    assert max(len(line) for line in said.splitlines()) <= 100
    assert sorted(path.name for path in workplace.iterdir()) == ["tiny.yaml", "train.jsonl"]


def test_json_says_the_same(workplace: Path):
    found = json.loads(plan(workplace, "tiny.yaml", "zero.stage=2", "--json").stdout)
    assert found["recipe"]["zero.stage"] == {"value": 2, "origin": "command line"}
    assert found["plan"]["length"]["steps"] == 18  # 2 epochs of 72 rows in batches of 8
    assert found["plan"]["is_estimated"] is True
    assert found["plan"]["trained_parameters"] == 3 * 4 * ((64 + 64) + (64 + 32))
    assert found["plan"]["memory"]["on_gpu"] is False
    assert found["verdict"]["word"] == "fits"


def test_a_machine_can_be_told_of(workplace: Path):
    said = plan(
        workplace, "tiny.yaml", "cluster.device=gpu", "--gpu-memory", "80GiB",
        "--node-memory", "512GiB", "--gpus-per-node", "1",
    ).stdout  # fmt: skip
    assert "a node of 1 worker" in said
    assert "of 80.0 GiB on a node: fits" in said
    assert "CUDA context" in said
    small = plan(workplace, "tiny.yaml", "--node-memory", "1GiB").stdout
    assert "Verdict: does not fit" in small
    wrong = plan(workplace, "tiny.yaml", "--node-memory", "much", status=2).stderr
    assert "--node-memory = much: is no size" in wrong


def test_what_is_not_here_is_told_and_the_rest_is_planned(workplace: Path):
    said = plan(workplace, "tiny.yaml", "base.source=nobody/nothing", "train.epochs=1").stdout
    assert "Not planned: base.source = nobody/nothing: is no folder, and has not been" in said
    assert "  steps                    9" in said
    assert "Memory" not in said
    lacking = plan(workplace, "tiny.yaml", "data.train=nowhere.jsonl").stdout
    assert "Length: not known" in lacking
    assert "nowhere.jsonl: there is no such file" in " ".join(lacking.split())
    assert "Memory of a worker" in lacking
    assert "Verdict: fits, as far as it is planned\n" in lacking


def test_an_adapter_that_does_not_fit_is_an_error(workplace: Path):
    said = plan(workplace, "tiny.yaml", "adapter.targets=[q_prj]", status=1).stderr
    assert said.startswith("shoal: error: adapter.targets = q_prj: matches no module of the base.")


def test_a_run_without_a_plan_is_told_so(workplace: Path, tmp_path: Path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "recipe.yaml").write_text((workplace / "tiny.yaml").read_text())
    said = plan(tmp_path, "old", status=1).stderr
    assert "plan.json: this run has no plan that can be read" in said


def test_prepared_rows_are_found_by_their_content_and_counted(workplace: Path, tmp_path: Path):
    from adapters.base_ref import locate
    from launcher.plan.rows import count_rows
    from launcher.prepare.found import look_for_prepared
    from launcher.prepare.key import prepared_key
    from launcher.prepare.sources.digests import Digests, hash_here
    from launcher.prepare.sources.source import find_sources
    from recipes.load import load

    recipe = load(workplace / "tiny.yaml", [f"storage.cache={tmp_path}"]).recipe
    folder = locate(recipe.base, tmp_path)
    sources = find_sources(recipe.data, tmp_path)
    assert look_for_prepared(recipe, sources, base_folder=folder, cache=tmp_path) is None
    entries = Digests(folder=tmp_path / "digests").of(sources, [None] * len(sources), hash_here)
    made = tmp_path / "prepared" / prepared_key(recipe, folder, entries)
    samples = tiny.samples(5)
    tiny.write_prepared(
        made,
        [tiny.row(samples[:2], 0), tiny.row(samples[2:3], 2)],
        [tiny.row([sample], number) for number, sample in enumerate(samples[3:], start=3)],
    )
    manifest = json.loads((made / "manifest.json").read_text())
    (made / "manifest.json").write_text(json.dumps(manifest | {"sources": entries}))
    assert look_for_prepared(recipe, sources, base_folder=folder, cache=tmp_path) == made
    rows = count_rows(made)
    assert list(rows.tokens) == [len(samples[0][0]) + len(samples[1][0]), len(samples[2][0])]
    assert list(rows.samples) == [2, 1]
    assert list(rows.held_out_tokens) == [len(ids) for ids, _ in samples[3:]]
    other = load(workplace / "tiny.yaml", ["data.sequence_length=32"]).recipe
    assert look_for_prepared(other, sources, base_folder=folder, cache=tmp_path) is None


def test_what_was_measured_is_read_from_the_runs_files(tmp_path: Path):
    def write(name: str, lines: list[dict]) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))

    steps = [{"step": n, "tokens": 10 * n, "seconds": n} for n in (1, 2, 3)]
    steps[1]["data_wait_s"], steps[2]["data_wait_s"] = 0.1, 0.4  # the first of an earlier shoal
    write("metrics.jsonl", steps)
    entries = [{"step": n, "batch": n - 1, "rows": [0], "samples": [[1, 2]]} for n in (1, 2, 3)]
    write("ledger/attempt_0001.jsonl", [{"attempt": 1, "after_step": 0, "num_rows": 4}, *entries])
    ranks = [[(0, 5, 1), (1, 7, 0)], [(0, 6, 0)]]  # the second attempt had one rank
    write(
        "events.jsonl",
        [
            {"event": "attempt", "workers": 2},
            {"event": "checkpoint", "bytes": 100},
            *(
                {
                    "event": "memory",
                    "ranks": [
                        {"rank": rank, "host_bytes": host, "device_bytes": device}
                        for rank, host, device in attempt
                    ],
                }
                for attempt in ranks
            ),
            {"event": "attempt", "workers": 1},
            {"event": "checkpoint", "bytes": 102},
        ],
    )
    found = measure(tmp_path)
    assert (found.workers, found.steps, found.samples, found.tokens) == (1, 3, 6, 60)
    assert found.data_wait == 0.1
    assert (found.step_s, found.checkpoint_bytes) == (2, 102)
    assert (found.host_bytes, found.device_bytes) == ([6, 7], [1, 0])


def test_pairs_say_how_far_off_a_prediction_was():
    predicted = {
        "length": {"steps": 6, "samples": 48, "tokens": 500},
        "memory": {
            "on_gpu": True, "host_bytes": 10, "device_bytes": 150, "libraries_bytes": 50,
        },
        "disk": {"checkpoint_bytes": 90},
    }  # fmt: skip
    measured = {
        "steps": 6, "samples": 40, "tokens": None, "host_bytes": [8, 20],
        "device_bytes": [80, 60], "checkpoint_bytes": 100,
    }  # fmt: skip
    pairs = compare({"predicted": {"plan": predicted}, "measured": measured})
    assert {pair.what: pair.off for pair in pairs} == {
        "steps": 0.0,
        "samples": pytest.approx(0.2),
        "tokens": None,
        "host memory, worker": -0.5,
        "GPU memory, tensors": pytest.approx(0.25),
        "a checkpoint": pytest.approx(-0.1),
    }


def test_a_job_is_shown_with_the_plan():
    shown = "\n".join(lines("quickstart", ["cluster.kind=slurm", "slurm.nodes=2"], as_json=False))
    assert "What `shoal submit` would hand in:\n\n#!/bin/bash\n" in shown
    assert "#SBATCH --nodes=2\n" in shown
