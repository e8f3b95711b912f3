"""The control plane of a thousand workers: how often it asks, opens and reads. Times are in
benchmarks/results/scale.json."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fleet
from cluster import nodes, shared_folders
from cluster.process import Completed
from cluster.slurm import commands
from launcher.driving.hangs import Beat
from launcher.driving.mailbox import Mailbox
from launcher.driving.watch import Watch
from launcher.plan.length import worker_counts
from launcher.records import looking
from launcher.records.epochs import epochs_of
from recipes.errors import StorageError
from recipes.listing import listed
from trainer import order
from trainer.ledger import read_ledger

RANKS = 1024


def bytes_read() -> int:
    """By this process so far, from wherever."""
    return int(Path("/proc/self/io").read_text().split()[1])


class FakeNodes:
    """Nodes that share a folder, all in this process: what would be asked of each is done here."""

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads: Counter[str] = Counter()
        alive = [{"NodeID": node, "Alive": True} for node in fleet.node_ids(count)]
        holds = shared_folders._holds

        def counted(file: Path, text: str) -> bool:
            self.reads[file.name] += 1
            return holds(file, text)

        monkeypatch.setattr(shared_folders.ray, "nodes", lambda: alive)
        monkeypatch.setattr(shared_folders, "_on_all", self.ask)
        monkeypatch.setattr(shared_folders, "_holds", counted)

    def ask(self, asked: Sequence[str], function: Any, *arguments: Any) -> list[Any]:
        return [function._function(node, *arguments) for node in asked]


def test_storage_is_proven_by_two_small_files_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = FakeNodes(RANKS, monkeypatch)
    shared_folders.check_shared({"storage.path": tmp_path})
    assert found.reads.total() == 2 * RANKS - 1
    assert list(tmp_path.iterdir()) == []


def test_nodes_that_see_another_folder_are_named_shortly():
    hosts = [f"n{number}" for number in range(RANKS)]
    seen = [True, *[False] * (RANKS - 1)]
    with pytest.raises(
        StorageError, match=r"n0 does not see what n1, n2, .*n8 and 1,015 more"
    ) as e:
        shared_folders.check_read(
            "storage.path", Path("/x"), hosts, by_first=seen, of_first=[True] * (RANKS - 1)
        )
    assert len(str(e.value)) < 300
    blind = [True] * (RANKS - 2) + [False]
    with pytest.raises(StorageError, match=r"what n0 wrote there is not seen by n1023: "):
        shared_folders.check_read(
            "storage.path", Path("/x"), hosts, by_first=[True] * RANKS, of_first=blind
        )
    assert listed(["a", "b"]) == "a, b"


def test_ranks_that_hang_are_looked_at_and_killed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """All of them, as when a switch fails: the stacks of a few tell what it is."""
    asked: list[tuple[str, int]] = []

    def look_at(places: Sequence[nodes.Place]) -> list[nodes.Looked]:
        asked.append(("look_at", len(places)))
        return [nodes.Looked(status="sleeping", stack="")] * len(places)

    monkeypatch.setattr(nodes, "look_at", look_at)
    monkeypatch.setattr(nodes, "kill", lambda places: asked.append(("kill", len(places))))
    told: list[str] = []
    watch = Watch(
        num_ranks=RANKS,
        start_s=60,
        hang_s=10,
        logs=tmp_path,
        on_event=lambda kind, details: told.append(kind),
    )
    watch.step_took(1.0)
    stuck = Beat(phase="backward", step=7, marks=9, age_s=1.0, still_s=100.0)
    watch.look(fleet.whereabouts(RANKS), dict.fromkeys(range(RANKS), stuck))
    assert asked == [("look_at", 8), ("kill", RANKS)]
    assert told == ["late"] * 8
    assert watch.hang is not None
    assert watch.hung_node is None


def test_what_the_driver_takes_does_not_grow_with_the_run():
    mailbox = Mailbox()
    for _ in range(3):
        for rank, pulse in fleet.pulses(RANKS).items():
            mailbox.beat(rank, fleet.whereabouts(8)[0], pulse)
    events, ranks, beats = mailbox.take()
    assert (len(events), len(ranks), len(beats)) == (0, RANKS, RANKS)


@pytest.mark.parametrize("count", [250, 1000])
def test_ps_reads_the_ends_of_files_and_asks_slurm_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
):
    fleet.write_runs(tmp_path, count, steps=500)
    asked: list[str] = []

    def run(command: list[str], *, timeout_s: float) -> Completed:
        asked.append(command[0])
        lines = "".join(f"{n}|COMPLETED|None|n[1-128]\n" for n in range(1, count, 4))
        return Completed(0, lines if command[0] == "squeue" else "", "")

    monkeypatch.setattr(commands, "run", run)
    before = bytes_read()
    seen = looking.see_all(tmp_path)
    read = bytes_read() - before
    assert len(seen) == count
    assert {(one.told.word, one.step) for one in seen} == {("finished", 500)}
    assert asked == ["squeue", "sacct"]
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.jsonl")) > 80_000 * count
    assert read < 40_000 * count


def test_a_ledger_is_read_in_the_memory_of_an_epoch(tmp_path: Path):
    steps, rows = 60, 2048
    fleet.write_ledger(tmp_path, steps=steps, rows_per_step=rows, attempts=3)
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    before = bytes_read()
    tracemalloc.start()
    account = read_ledger(tmp_path)
    opened = tracemalloc.get_traced_memory()[1]
    assert bytes_read() - before < 1.1 * size
    epochs = epochs_of(account)
    proven = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(account.entries), account.attempts) == (steps, 3)
    assert opened < 2**20  # a line of a step, and 20 bytes for each
    # 24 bytes for a row and its two samples, some times over while they are joined and sorted; as
    # Python's numbers in lists they would take 300.
    assert proven < 2 * 2**20 + 6 * 24 * steps * rows
    assert [(epoch.rows, epoch.repeated, epoch.lost) for epoch in epochs] == [(steps * rows, [], 0)]


def test_a_step_asks_for_the_order_once(monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []
    real = order.epoch_order

    def counted(num_rows: int, seed: int, epoch: int) -> Any:
        asked.append(epoch)
        return real(num_rows, seed, epoch)

    monkeypatch.setattr(order, "epoch_order", counted)
    made = order.Order(num_rows=10_000, seed=1, global_batch_size=4096, micro_batch_size=4)
    assert len(made.rows(0)) == 4096
    assert len(made.rows(2)) == 4096
    assert asked == [0, 0, 1]


def test_worker_counts_up_to_a_thousand():
    counts = worker_counts(fleet.recipe())
    assert counts[0].workers == 1
    assert counts[-1].workers == 4 * fleet.WORKERS
    assert any(c.workers == fleet.WORKERS and c.accumulation == 4 and not c.idle for c in counts)
    assert len(counts) < 2 * 64 + 1  # twice the root of the micro-batches
