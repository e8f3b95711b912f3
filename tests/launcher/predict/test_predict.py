"""Predictions for files: one line for each row, in order, the same on any number of workers."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from adapters.light_tokenizer import leave_tokenizer
from adapters.tokenizer import load_tokenizer
from launcher.predict import prediction
from launcher.predict.answering import Answerer, Answering
from launcher.predict.asking import Asked, Asking, ask_unit
from launcher.predict.prediction import Wanted, check_target, crew, predict, slices
from launcher.prepare.sources.source import Source, Unit
from launcher.using.chosen import choose, opening_of
from launcher.using.questions import units_of, way_of_texts
from recipes import data as recipe_data
from recipes.cluster import Cluster
from recipes.errors import CheckpointError, ClusterError, DataError, RecipeError
from support import tiny, used


class Told:
    """A display that is read afterwards."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.phases: list[tuple[str, int, int]] = []

    def phase(self, name: str, done: int, total: int, *, rows: int = 0) -> None:
        self.phases.append((name, done, total))

    def step(self, metrics: Mapping[str, Any]) -> None:
        raise AssertionError("nothing is trained")

    def line(self, text: str) -> None:
        self.lines.append(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        raise AssertionError("there is no table")

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def runs(llama: Path, bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`chats`, `chooses`, `labels` and `several`."""
    storage = tmp_path_factory.mktemp("predict") / "runs"
    used.make_run(storage, "chats", llama)
    used.make_run(storage, "chooses", llama, more="evaluate: {choices: [w1 w5, w30 w31]}\n")
    config = LoraConfig(
        r=4, task_type="SEQ_CLS", target_modules=["query", "value"], modules_to_save=["classifier"]
    )
    used.make_run(storage, "labels", bert, config=config, labels=("bad", "good"))
    names = ("acting", "music", "plot")
    used.make_run(storage, "several", bert, config=config, labels=names, multi_label=True)
    return storage


def chat(number: int, answer: str | None = "w1") -> dict[str, Any]:
    """Of one to five words."""
    words = " ".join(f"w{(7 * number + word) % 100}" for word in range(1 + number % 5))
    last = [{"role": "assistant", "content": answer}] if answer is not None else []
    return {"messages": [{"role": "user", "content": words}, *last]}


def write(file: Path, rows: Sequence[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("\n".join(lines) + "\n")
    return file


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def ask(run: Path, file: Path, to: Path, overrides: Sequence[str] = (), **options: Any) -> Any:
    check_target(to, force=False)
    wanted = Wanted(
        run=str(run), file=str(file), to=to, **{"max_new_tokens": 6, "batch_size": 4, **options}
    )
    return predict(wanted, overrides, Told())


def test_every_row_has_its_line_whatever_the_number_of_workers(
    local_ray: None, runs: Path, llama: Path, tmp_path: Path
):
    rows: list[Any] = [chat(number) for number in range(41)]
    rows[3] = "{no json"
    rows[7] = {"messages": [{"role": "assistant", "content": "w1"}]}
    rows[8] = {"messages": [{"role": "user"}]}
    rows[12] = chat(12, None)
    rows[20] = {"other": 1}
    rows[30] = {"messages": [{"role": "user", "content": "w1 " * 300}]}
    rows[31] = ""  # a blank line is no row, and is counted as a line
    rows[33] = {"text": "w4 w5", "label": "w6"}
    file = write(tmp_path / "rows.jsonl", rows)
    found = ask(runs / "chats", file, tmp_path / "one.jsonl", workers=1)
    again = ask(runs / "chats", file, tmp_path / "three.jsonl", workers=3)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "three.jsonl").read_bytes()
    assert found == again
    assert found.rows == 40
    assert found.unusable == {
        "bad message": 1, "no known column": 1, "no question": 1, "not JSON": 1, "too long": 1,
    }  # fmt: skip
    made = lines_of(tmp_path / "one.jsonl")
    assert [line["row"] for line in made] == [n for n in range(1, 42) if n != 32]
    assert [line["row"] for line in made if "error" in line] == [4, 8, 9, 21, 31]
    by_row = {line["row"]: line for line in made}
    assert by_row[4]["error"].startswith("not JSON: ")
    assert by_row[4]["input"] == "{no json"
    assert "the base takes 256" in by_row[31]["error"]
    assert all(line["prediction"] is None for line in made if "error" in line)
    assert "right" not in by_row[13]
    assert by_row[34]["right"] == "w6"
    assert by_row[1]["input"] == rows[0]
    # The same as plain PEFT answers each row alone.
    model = plain(llama, runs / "chats")
    tokenizer = load_tokenizer(llama)
    for line in made:
        if "error" not in line and "messages" in line["input"]:
            ids = tokenizer.apply_chat_template(
                line["input"]["messages"][:1], add_generation_prompt=True, return_tensors="pt",
                return_dict=True,
            )  # fmt: skip
            output = model.generate(**ids, max_new_tokens=6, do_sample=False, use_cache=True)
            told = tokenizer.decode(
                output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True
            )
            assert line["prediction"] == told.strip(), line
    judged = [line for line in made if "right" in line]
    same = sum(line["right"] == line["prediction"] for line in judged)
    assert found.scores == {"exact match": same / len(judged)}
    assert not list((runs.parent / "cache" / "predicting").iterdir())


def ask_here(
    run: Path, file: Path, work: Path, overrides: Sequence[str] = (), *, choices: bool = True
) -> list[Any]:
    """Both stages in this process, without Ray: of each slice what a worker hands back."""
    [chosen] = choose([str(run)], overrides, print)
    opening = opening_of(chosen.recipe, [chosen])
    leave_tokenizer(
        work / "tokenizer", opening.folder, chosen.recipe.base.new_tokens, opening.chat_template
    )
    asking = Asking(
        recipe=chosen.recipe,
        tokenizer_folder=work / "tokenizer",
        work=work,
        way=way_of_texts(chosen.recipe, has_template=True, tell=print),
        choices=tuple(chosen.recipe.evaluate.choices) if choices else (),
        positions=256,
        max_new_tokens=6,
    )
    answerer = Answerer(
        Answering(
            opening=opening,
            adapter=chosen.folder,
            work=work,
            choices=asking.choices,
            batch_size=4,
            max_new_tokens=6,
            threads=1,
        )
    )
    parts = units_of(str(file), chosen.recipe, "FILE")
    asked = [ask_unit(unit, asking) for unit in parts]
    items = [pickle.dumps(part) for part in slices(parts, asked, 4)]
    return [
        pickle.loads(answered)
        for item in items
        for answered in answerer(pa.table({"slice": [item]}))["answered"].to_pylist()
    ]


def lines_in(answered: Sequence[Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for part in answered for line in part.lines]


def plain(base: Path, run: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(base)
    return PeftModel.from_pretrained(model, str(next(run.rglob("adapter")))).eval()


def test_a_choice_is_the_likeliest_answer(runs: Path, llama: Path, tmp_path: Path):
    rows = [chat(number, "w30 w31" if number % 3 else "w1 w5") for number in range(30)]
    file = write(tmp_path / "rows.jsonl", rows)
    answered = ask_here(runs / "chooses", file, tmp_path)
    made = lines_in(answered)
    model, tokenizer = plain(llama, runs / "chooses"), load_tokenizer(llama)

    def likelihood(messages: list[dict[str, str]], choice: str) -> float:
        question = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        answer = tokenizer(f"{choice} <|end|>")["input_ids"]
        ids = torch.tensor([[*question, *answer]])
        with torch.no_grad():
            values = model(input_ids=ids, use_cache=False).logits[0].log_softmax(dim=-1)
        places = range(len(question) - 1, ids.shape[1] - 1)
        return sum(values[at, ids[0, at + 1]].item() for at in places)

    for row, line in zip(rows, made, strict=True):
        told = [likelihood(row["messages"][:1], choice) for choice in ("w1 w5", "w30 w31")]
        expected = torch.softmax(torch.tensor(told), dim=0).tolist()
        assert list(line["probabilities"]) == ["w1 w5", "w30 w31"]
        assert list(line["probabilities"].values()) == pytest.approx(expected, abs=1e-4)
        assert line["prediction"] == ("w1 w5", "w30 w31")[expected.index(max(expected))]
    assert len({line["prediction"] for line in made}) == 2
    judged = [pair for part in answered for pair in part.judged]
    assert judged == [(line["right"], line["prediction"]) for line in made]
    same = sum(right == predicted for right, predicted in judged)
    assert prediction._scores(judged, is_chosen=True)["accuracy"] == pytest.approx(same / 30)
    free = lines_in(ask_here(runs / "chooses", file, tmp_path, choices=False))
    assert "probabilities" not in free[0]
    assert len({line["prediction"] for line in free}) > 2


def test_labels_with_their_probabilities(runs: Path, bert: Path, tmp_path: Path):
    texts = [" ".join(f"w{(number * 13 + word) % 100}" for word in range(1 + number % 6))
             for number in range(20)]  # fmt: skip
    table = pa.table({"text": texts, "label": ["good", "bad", None, "odd"] * 5})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=6)
    answered = ask_here(runs / "labels", tmp_path / "rows.parquet", tmp_path)
    made = lines_in(answered)
    assert [line["row"] for line in made] == list(range(1, 21))
    base = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2)
    model = PeftModel.from_pretrained(base, str(next((runs / "labels").rglob("adapter")))).eval()
    tokenizer = load_tokenizer(bert)
    for text, line in zip(texts, made, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits
        expected = torch.softmax(logits[0], dim=-1).tolist()
        assert list(line["probabilities"]) == ["bad", "good"]
        assert list(line["probabilities"].values()) == pytest.approx(expected, abs=1e-4)
        assert line["prediction"] == ("bad", "good")[expected.index(max(expected))]
    assert len({line["prediction"] for line in made}) == 2
    assert [line.get("right") for line in made[:4]] == ["good", "bad", None, "odd"]
    assert sum(len(part.judged) for part in answered) == 15


def test_several_labels_and_pairs(runs: Path, bert: Path, tmp_path: Path):
    rows = [
        {"text": f"w{number} w5 w7", "text_pair": f"w{3 * number} w9", "labels": right}
        for number, right in enumerate([["plot", "acting"], [], ["music"], None] * 5)
    ]
    texts = [{name: row[name] for name in ("text", "labels")} for row in rows]
    file = write(tmp_path / "texts.jsonl", texts)
    answered = ask_here(runs / "several", file, tmp_path, ["data.format=text_labels"])
    made = lines_in(answered)
    names = ["acting", "music", "plot"]
    base = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=3)
    model = PeftModel.from_pretrained(base, str(next((runs / "several").rglob("adapter")))).eval()
    tokenizer = load_tokenizer(bert)
    for row, line in zip(rows, made, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(row["text"], return_tensors="pt")).logits[0]
        assert list(line["probabilities"].values()) == pytest.approx(
            logits.sigmoid().tolist(), abs=1e-4
        )
        assert line["prediction"] == [name for name, v in zip(names, logits, strict=True) if v > 0]
    assert len({len(line["prediction"]) for line in made}) > 1
    assert [line.get("right") for line in made[:4]] == [["acting", "plot"], [], ["music"], None]
    judged = [pair for part in answered for pair in part.judged]
    assert len(judged) == 15
    found = prediction._scores(judged, is_chosen=True, multi_label=True)
    assert set(found) == {"exact_match", "f1", "f1_micro"}

    pairs = [{"text": row["text"], "text_pair": row["text_pair"]} for row in rows]
    (tmp_path / "pairs").mkdir()
    file = write(tmp_path / "pairs.jsonl", pairs)
    made = lines_in(ask_here(runs / "labels", file, tmp_path / "pairs", ["data.format=text_pair"]))
    base = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2)
    model = PeftModel.from_pretrained(base, str(next((runs / "labels").rglob("adapter")))).eval()
    for row, line in zip(pairs, made, strict=True):
        with torch.no_grad():
            asked = tokenizer(row["text"], row["text_pair"], return_tensors="pt")
            expected = model(**asked).logits[0].softmax(dim=-1).tolist()
        assert list(line["probabilities"].values()) == pytest.approx(expected, abs=1e-4)


def test_columns_and_files_as_the_recipe_names_them(runs: Path, tmp_path: Path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.csv").write_text("review,stars\nw1 w2,5\nw3,\n")
    write(folder / "b.jsonl", [{"review": "w1 w2"}, {"review": " "}])
    changes = ["data.columns={text: review, label: stars}", "data.format=text_label"]
    made = lines_in(ask_here(runs / "chats", folder, tmp_path, [*changes, "data.system=w9"]))
    assert [(Path(line["file"]).name, line["row"]) for line in made] == [
        ("a.csv", 1), ("a.csv", 2), ("b.jsonl", 1), ("b.jsonl", 2),
    ]  # fmt: skip
    assert made[0]["prediction"] == made[2]["prediction"]
    assert made[0]["right"] == "5"
    assert made[3]["error"] == "empty"


def test_errors_leave_nothing(local_ray: None, runs: Path, tmp_path: Path):
    out = tmp_path / "out.jsonl"
    odd = write(tmp_path / "odd.jsonl", [{"question": "w1"}, "[1]"])
    with pytest.raises(
        DataError, match=r"none of 2 rows can be asked \(1 no known column, 1 not a"
    ):
        ask(runs / "chats", odd, out)
    with pytest.raises(
        DataError, match=r"FILE = .*od\.jsonl: there is no such file\. Did you mean"
    ):
        ask(runs / "chats", tmp_path / "od.jsonl", out)
    rows = write(tmp_path / "rows.jsonl", [chat(1)])
    with pytest.raises(RecipeError, match="there is no folder"):
        ask(runs / "chats", rows, tmp_path / "nowhere" / "out.jsonl")
    assert sorted(tmp_path.glob("*out*")) == []


def test_an_error_of_a_worker_goes_back_as_a_value(runs: Path, tmp_path: Path):
    run = shutil.copytree(runs / "chats", tmp_path / "runs" / "chats")
    [chosen] = choose([str(run)], (), print)
    answering = Answering(
        opening=opening_of(chosen.recipe, [chosen]),
        adapter=chosen.folder,
        work=tmp_path,
        choices=(),
        batch_size=1,
        max_new_tokens=1,
        threads=1,
    )
    next(run.rglob("adapter_model.safetensors")).write_bytes(b"torn")
    table = Answerer(answering)(pa.table({"slice": [b""]}))
    error = pickle.loads(table["answered"][0].as_py())
    assert isinstance(error, CheckpointError)
    assert "adapter_model.safetensors: differs from what was saved" in str(error)


def test_more_workers_than_there_is_room_for():
    cluster = Cluster(cpus_per_worker=2)
    assert crew(cluster, {"CPU": 8.0}, 3) == (3, False)
    assert crew(cluster, {"CPU": 8.0}, 30) == (4, False)
    assert crew(cluster, {"CPU": 8.0, "GPU": 2.0}, 30) == (2, True)
    with pytest.raises(ClusterError, match="the cluster has 1"):
        crew(cluster, {"CPU": 1.0}, 1)


def test_slices_are_whole_batches_and_few():
    source = Source(
        address="/a.jsonl",
        split="held_out",
        spec=recipe_data.Source(path="/a.jsonl"),
        entry=0,
        kind="json_lines",
        compression=None,
        bytes=2,
        stamp="",
    )
    parts = [Unit(number=n, source=source, begin=0, end=1) for n in range(2)]
    asked = [Asked(unit=n, rows=rows, lines=rows + 5, unusable=Counter()) for n, rows in
             enumerate((50_000, 7))]  # fmt: skip
    made = slices(parts, asked, 8)
    assert len(made) <= 2001
    assert all((part.end - part.begin) % 8 == 0 for part in made[:-2])
    assert sum(part.end - part.begin for part in made) == 50_007
    assert [part.number for part in made] == list(range(len(made)))
    assert made[-1].lines_before == 50_005
