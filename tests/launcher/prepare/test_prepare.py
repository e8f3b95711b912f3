"""Prepared folders, made on a real local Ray."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from launcher.prepare.found import Prepared
from launcher.prepare.pipeline import prepare
from launcher.prepare.stages import stage as prepare_stage
from recipes.base import Base
from recipes.data import Data, Source, steps
from recipes.errors import BaseModelError, DataError, StorageError
from recipes.evaluate import Evaluate
from recipes.recipe import Recipe
from recipes.train import Train
from trainer.split import open_split

pytestmark = pytest.mark.usefixtures("local_ray")


def write(file: Path, rows: list[Any]) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def asked(number: int, answer: str = "w1") -> dict[str, Any]:
    return {"text": f"w{number % 100} w{number // 100} w2", "label": answer}


def recipe(train: list[str] | str, **changes: Any) -> Recipe:
    data = {"sequence_length": 64} | changes.pop("data", {})
    names = [train] if isinstance(train, str) else train
    sources = [Source(path=name) for name in names]
    plain = Recipe(
        name="r", base=Base(source="b"), data=Data(train=sources, **data), train=Train(steps=1)
    )
    return dataclasses.replace(plain, **changes)


def run(chosen: Recipe, llama: Path, cache: Path) -> tuple[Prepared, list[tuple[str, int, int]]]:
    told: list[tuple[str, int, int]] = []
    prepared = prepare(
        chosen, base_folder=llama, cache=cache, progress=lambda *seen, rows=0: told.append(seen)
    )
    return prepared, told


def test_a_second_time_nothing_is_prepared(llama: Path, tmp_path: Path):
    file = write(tmp_path / "a" / "rows.jsonl", [asked(n) for n in range(30)])
    first, told = run(recipe(file), llama, tmp_path)
    assert first.fresh
    assert ("tokenizing", 1, 1) in told
    again, told = run(recipe(file), llama, tmp_path)
    assert not again.fresh
    assert again.manifest == first.manifest
    assert {name for name, _, _ in told} == {"reading sources"}
    # The key is of the content: another place is the same, another byte is not.
    moved = write(tmp_path / "b" / "moved.jsonl", [asked(n) for n in range(30)])
    assert run(recipe(moved), llama, tmp_path)[0].folder == first.folder
    edited = write(tmp_path / "b" / "edited.jsonl", [asked(n) for n in range(1, 31)])
    assert run(recipe(edited), llama, tmp_path)[0].folder != first.folder
    other = recipe(file, data={"sequence_length": 32})
    assert run(other, llama, tmp_path)[0].folder != first.folder


def test_what_is_damaged_is_prepared_again(llama: Path, tmp_path: Path):
    file = write(tmp_path / "rows.jsonl", [asked(n) for n in range(30)])
    first, _ = run(recipe(file), llama, tmp_path)
    shard = first.folder / "train" / first.manifest["splits"]["train"]["shards"][0]["file"]
    whole = shard.read_bytes()
    os.truncate(shard, 1000)
    said: list[str] = []
    again = prepare(
        recipe(file),
        base_folder=llama,
        cache=tmp_path,
        progress=lambda *seen, rows=0: None,
        tell=said.append,
    )
    assert again.fresh
    assert said[0] == f"{shard}: has 1,000 of {len(whole):,} bytes: all of it is prepared again"
    assert again.folder == first.folder
    assert again.manifest == first.manifest
    assert shard.read_bytes() == whole
    assert [entry.name for entry in first.folder.parent.iterdir()] == [first.folder.name]


def test_two_at_the_same_time_prepare_once(llama: Path, tmp_path: Path):
    """The second comes while the first is at it, and waits for it."""
    file = write(tmp_path / "rows.jsonl", [asked(n) for n in range(30)])
    waits = threading.Event()
    told: list[str] = []

    def told_second(name: str, done: int, total: int, *, rows: int = 0) -> None:
        told.append(name)
        if name.startswith("waiting for another run"):
            waits.set()

    def second() -> Prepared:
        return prepare(recipe(file), base_folder=llama, cache=tmp_path, progress=told_second)

    with ThreadPoolExecutor(1) as pool:
        pending: list[Future[Prepared]] = []

        def told_first(name: str, done: int, total: int, *, rows: int = 0) -> None:
            if name == "cleaning" and done == 0:
                pending.append(pool.submit(second))
                assert waits.wait(600)

        first = prepare(recipe(file), base_folder=llama, cache=tmp_path, progress=told_first)
        again = pending[0].result(600)
    assert (first.fresh, again.fresh) == (True, False)
    assert again.folder == first.folder
    assert "tokenizing" not in told


def test_rows_are_neither_lost_nor_invented(llama: Path, tmp_path: Path):
    """Every row is trained on, held out, or set aside with its place, over several units."""
    rows = [asked(n) for n in range(500)]
    rows[10] = {"text": None, "label": "w1"}
    rows[20] = rows[7]
    rows[499] = rows[0]
    rows[250] = {"text": " ".join(["w1"] * 100), "label": "w1"}
    first = write(tmp_path / "first.jsonl", rows[:100])
    second = tmp_path / "second.jsonl"
    second.write_text("\n{broken\n" + "".join(json.dumps(row) + "\n" for row in rows[100:]))
    chosen = recipe([first, str(second)], data={"held_out_fraction": 0.1})
    prepared, _ = run(chosen, llama, tmp_path)
    manifest = prepared.manifest
    assert manifest["rows_read"] == 501
    assert manifest["rejected"] == {"duplicate": 2, "no text": 1, "not JSON": 1, "too long": 1}
    splits = manifest["splits"]
    assert splits["train"]["samples"] + splits["held_out"]["samples"] == 501 - 5
    assert splits["held_out"]["samples"] > 10
    rejected = [
        json.loads(line)
        for file in sorted((prepared.folder / "rejected").iterdir())
        for line in file.read_text().splitlines()
    ]
    places = {(Path(row["file"]).name, row["row"], row["reason"]) for row in rejected}
    assert places == {
        ("first.jsonl", 11, "no text"),
        ("first.jsonl", 21, "duplicate"),
        ("second.jsonl", 2, "not JSON"),
        ("second.jsonl", 2 + 151, "too long"),
        ("second.jsonl", 2 + 400, "duplicate"),
    }
    split = open_split(prepared.folder, "train")
    ids = [int(sample) for index in range(len(split)) for sample in split[index].samples]
    assert len(set(ids)) == len(ids) == splits["train"]["samples"]
    assert not list((tmp_path / "prepared").glob(".*"))


def test_shards_do_not_depend_on_who_computes_them(llama: Path, tmp_path: Path):
    file = write(tmp_path / "rows.jsonl", [asked(n) for n in range(300)])
    chosen = recipe(file, data={"packing": True, "held_out_fraction": 0.1})
    one, _ = run(chosen, llama, tmp_path / "one")
    import ray.data

    context = ray.data.DataContext.get_current()
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.for_limits(cpu=1)
    try:
        two, _ = run(chosen, llama, tmp_path / "two")
    finally:
        context.execution_options.resource_limits = limits
    assert one.manifest["splits"] == two.manifest["splits"]  # sha256 of every shard among them


def test_packed_rows_hold_the_samples_of_unpacked_ones(llama: Path, tmp_path: Path):
    file = write(tmp_path / "rows.jsonl", [asked(n) for n in range(50)])
    packed, _ = run(recipe(file, data={"packing": True}), llama, tmp_path)
    plain, _ = run(recipe(file), llama, tmp_path)
    pieces = {}
    split = open_split(packed.folder, "train")
    assert len(split) < 50 / 3
    for index in range(len(split)):
        row = split[index]
        assert len(row.input_ids) <= 64
        begin = 0
        for length, sample in zip(row.lengths, row.samples, strict=True):
            part = slice(begin, begin + length)
            pieces[int(sample)] = (row.input_ids[part].tolist(), row.labels[part].tolist())
            begin += int(length)
    alone = open_split(plain.folder, "train")
    for index in range(len(alone)):
        row = alone[index]
        assert pieces.pop(int(row.samples[0])) == (row.input_ids.tolist(), row.labels.tolist())
    assert not pieces


def test_choices_come_once_for_each_answer(llama: Path, tmp_path: Path):
    train = write(tmp_path / "train.jsonl", [asked(n) for n in range(10)])
    held_out = write(
        tmp_path / "held_out.jsonl", [asked(50, "w1"), asked(51, "w5"), asked(52, "w9")]
    )
    chosen = recipe(
        train, data={"held_out": [Source(path=held_out)]}, evaluate=Evaluate(choices=["w1", "w5"])
    )
    prepared, _ = run(chosen, llama, tmp_path)
    split = open_split(prepared.folder, "held_out")
    rows = [split[index] for index in range(len(split))]
    assert [(row.choice, row.answer) for row in rows] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert prepared.manifest["splits"]["held_out"]["samples"] == 2
    assert prepared.manifest["rejected"] == {"answer is not among evaluate.choices": 1}
    prompts = (prepared.folder / "prompts.jsonl").read_text().split("\n")
    assert json.loads(prompts[0])["answer"] == "w1"
    assert json.loads(prompts[0])["messages"] == [{"role": "user", "content": "w50 w0 w2"}]


def test_labels_of_a_classification(llama: Path, tmp_path: Path):
    rows = [asked(n, "good" if n % 3 else "bad") for n in range(30)]
    file = write(tmp_path / "rows.jsonl", [*rows, {**rows[4], "label": "bad"}])
    chosen = recipe(file, task="sequence_classification")
    prepared, _ = run(chosen, llama, tmp_path)
    assert prepared.manifest["labels"] == ["bad", "good"]
    assert prepared.manifest["rejected"] == {"contradicting labels": 2}
    split = open_split(prepared.folder, "train")
    assert [split[index].label for index in range(4)] == [0, 1, 1, 0]
    assert split.supervised.tolist() == [1] * 29


@pytest.mark.parametrize(
    ("rows", "data", "said"),
    [
        (
            [{"body": "x"}] * 3,
            {},
            r"none of 3 rows can be trained on \(3 no known column\).*data.columns.*"
            r"\n  no known column, such as rows.jsonl row 1: .*body",
        ),
        (
            [{"text": "x", "in": {"fold": 1}}],
            {"held_out_column": "in.fold", "held_out_values": ["1"]},
            r"none of 1 rows can be trained on \(all are held out\) in",
        ),
        ([asked(1)], {"sequence_length": 2}, r"none of 1 rows .*\(1 too long\)"),
        (
            [asked(1)],
            {"sequence_length": 2, "too_long": "truncate"},
            r"none of 1 rows .*\(1 no supervised token\)",
        ),
        ([asked(1), asked(2)], {"held_out_fraction": 1e-9}, "held_out_fraction: no usable row"),
    ],
)
def test_nothing_to_train_on(
    llama: Path, tmp_path: Path, rows: list[Any], data: dict[str, Any], said: str
):
    file = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=said):
        run(recipe(file, data=data), llama, tmp_path)
    assert list((tmp_path / "prepared").iterdir()) == []
    assert list((tmp_path / "preparing").iterdir()) == []


def test_a_tokenizer_that_cannot_mark_what_is_learnt_stops_it(tmp_path: Path):
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(tmp_path / "base")
    file = write(tmp_path / "rows.jsonl", [{"text": "a b c"}])
    for clean in ([], [steps.Tokens()]):
        chosen = recipe(file, data={"clean": clean})
        with pytest.raises(BaseModelError, match="base: ByT5Tokenizer does not tell where in a"):
            run(chosen, tmp_path / "base", tmp_path)
    label = recipe(write(tmp_path / "labels.jsonl", [asked(1), asked(2, "w2")]))
    label = dataclasses.replace(label, task="sequence_classification")
    assert run(label, tmp_path / "base", tmp_path)[0].manifest["splits"]["train"]["samples"] == 2


def test_an_error_in_a_task_is_told_as_it_is(llama: Path, tmp_path: Path):
    (tmp_path / "rows.json").write_text("{]")
    with pytest.raises(DataError, match=r"rows.json: is not JSON"):
        run(recipe(str(tmp_path / "rows.json")), llama, tmp_path)
    assert list((tmp_path / "prepared").iterdir()) == []


def deadly(text: str, folder: str) -> str:
    """Brings its process down, and notes that it was called."""
    Path(folder, f"{os.getpid()}.called").touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return text


def test_a_task_that_brings_its_process_down_is_not_begun_for_ever(llama: Path, tmp_path: Path):
    file = write(tmp_path / "rows.jsonl", [asked(n) for n in range(5)])
    call = steps.Call(function=f"{__file__}:deadly", options={"folder": str(tmp_path)})
    with pytest.raises(DataError, match=rf"^{file}: the process that works on it has died 3 times"):
        run(recipe(file, data={"clean": [call]}), llama, tmp_path)
    assert len(list(tmp_path.glob("*.called"))) == 3


def test_interrupted_it_leaves_nothing_that_could_be_taken_for_data(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = write(tmp_path / "rows.jsonl", [asked(n) for n in range(5)])
    real = prepare_stage.run_on_ray

    def interrupted(function: Any, *rest: Any, **options: Any) -> Any:
        if function.name == "tokens":
            raise KeyboardInterrupt
        return real(function, *rest, **options)

    monkeypatch.setattr("launcher.prepare.stages.sequence.run_on_ray", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(recipe(file), llama, tmp_path)
    assert list((tmp_path / "prepared").iterdir()) == []
    monkeypatch.undo()
    # As a process leaves it that is killed while it writes.
    [aside] = (tmp_path / "preparing").iterdir()
    (aside / "rejected").mkdir()
    (aside / "rejected" / ".00000.jsonl.0123abcd").write_text("{")
    prepared, _ = run(recipe(file), llama, tmp_path)
    assert prepared.fresh
    assert not list(prepared.folder.rglob(".*"))


def test_a_full_disk_is_told_as_it_is(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ray would wrap the error of the task."""
    file = write(tmp_path / "rows.jsonl", [asked(n) for n in range(5)])
    real = prepare_stage.run_on_ray

    def full(function: Any, *rest: Any, **options: Any) -> Any:
        def no_room(unit: Any, context: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return real(no_room, *rest, **options)

    monkeypatch.setattr("launcher.prepare.stages.sequence.run_on_ray", full)
    with pytest.raises(StorageError, match="No space left on device"):
        run(recipe(file), llama, tmp_path)
    assert list((tmp_path / "prepared").iterdir()) == []
