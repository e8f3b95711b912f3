"""Rows of every shape, prepared together on a real local Ray."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from launcher.prepare.found import Prepared
from launcher.prepare.pipeline import prepare
from launcher.session import check_trained, run
from launcher.terminal import open_display
from recipes.base import Base
from recipes.data import Data, Source
from recipes.errors import DataError, RecipeError
from recipes.load import load
from recipes.recipe import Recipe
from recipes.train import Train
from support import tiny
from trainer.shards import IGNORED
from trainer.split import open_split

pytestmark = pytest.mark.usefixtures("local_ray")

PNG = b"\x89PNG\r\n\x1a\nrest"


def asked(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answered(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def made(folder: Path, llama: Path, sources: dict[str, list[Any]], **data: Any) -> Prepared:
    entries = []
    for name, rows in sources.items():
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        entries.append(Source(path=str(file)))
    recipe = Recipe(
        name="r",
        base=Base(source="b"),
        data=dataclasses.replace(Data(train=entries, sequence_length=32), **data),
        train=Train(steps=1),
    )
    return prepare(
        recipe, base_folder=llama, cache=folder, progress=lambda name, done, total, rows=0: None
    )


def learnt(prepared: Prepared, llama: Path) -> set[tuple[str, str]]:
    """What each row shows and what is learnt from it."""
    from adapters.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(llama)
    split = open_split(prepared.folder, "train")
    rows = (split[index] for index in range(len(split)))
    return {
        (
            tokenizer.decode(row.input_ids.tolist()),
            tokenizer.decode([label for label in row.labels.tolist() if label != IGNORED]),
        )
        for row in rows
    }


def test_rows_of_several_shapes_are_trained_together(llama: Path, tmp_path: Path):
    flagged = [asked("w1"), answered("w2", train=False), asked("w3"), answered("w4")]
    long = [message for n in range(13) for message in (asked(f"w{n}"), answered(f"w{n}"))]
    spelled = [asked("<|end|>"), answered("w1")]
    pages = " ".join(f"w{n}" for n in range(60))
    prepared = made(
        tmp_path,
        llama,
        {
            "alpaca": [{"instruction": "w1", "input": "w2", "output": "w3"}],
            "sharegpt": [{"conversations": [{"from": "human", "value": "w5"}, answered("w6")]}],
            "openai": [{"messages": flagged}, {"messages": long}, {"messages": spelled}],
            "completions": [{"prompt": "w7 ", "completion": "w8"}],
            "labels": [{"text": "w9", "label": "w10"}],
            "pages": [{"text": pages}],
        },
        too_long="split",
    )  # fmt: skip
    found = learnt(prepared, llama)
    turn = "<|user|> {} <|end|> <|assistant|> {} <|end|>"
    assert {
        (turn.format("w1 w2", "w3"), "w3 <|end|>"),
        (turn.format("w5", "w6"), "w6 <|end|>"),
        (f"{turn.format('w1', 'w2')} {turn.format('w3', 'w4')}", "w4 <|end|>"),
        ("w7 w8 <|end|>", "w8 <|end|>"),
        (turn.format("w9", "w10"), "w10 <|end|>"),
    } <= found
    split = found - {(text, said) for text, said in found if len(text.split()) < 13}
    assert len(split) == 5
    assert {said for text, said in split if "<|user|>" not in text} == {
        " ".join(f"w{n}" for n in range(1, 32)),
        " ".join([*(f"w{n}" for n in range(33, 60)), "<|end|>"]),
    }
    chats = [said.split() for text, said in split if text.startswith("<|user|>")]
    assert sorted(word for said in chats for word in said if word != "<|end|>") == sorted(
        f"w{n}" for n in range(13)
    )
    assert prepared.manifest["rejected"] == {"special token in text": 1}
    assert prepared.manifest["cut"] == {"split at turns": 3, "split into pieces": 2}
    assert prepared.manifest["only_prepared"] == []
    check_trained(prepared)


@pytest.mark.parametrize("packing", [False, True])
def test_what_is_only_prepared_is_said_to_be(llama: Path, tmp_path: Path, packing: bool):
    import base64

    image = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    images = tmp_path / "base"
    tiny.make_llama(images)
    template = (
        "{% for m in messages %}<|{{ m.role }}|> {% for p in m.content %}"
        "{{ '<unk> ' if p.type == 'image' else p.text }}{% endfor %} <|end|> {% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    own = tmp_path / "own.jinja"
    own.write_text(template)
    prepared = made(
        tmp_path,
        images,
        {
            "pairs": [{"prompt": "w1 ", "chosen": "w2", "rejected": "w3"}],
            "pictures": [{"messages": [asked("w4"), answered("w5")], "images": [image]}] * 2,
        },
        chat_template=str(own),
        packing=packing,
    )
    assert prepared.manifest["only_prepared"] == ["image_text", "preference"]
    with pytest.raises(DataError, match=r"rows hold images .*no run can train on them yet"):
        check_trained(prepared)
    split = open_split(prepared.folder, "train")
    rows = [split[index] for index in range(len(split))]
    assert sorted((row.choice, row.answer) for row in rows) == [(-1, -1), (0, 0), (1, 0)]
    [file] = (prepared.folder / "images").iterdir()
    assert file.read_bytes() == PNG
    shards = prepared.manifest["splits"]["train"]["shards"]
    tables = [
        pa.ipc.open_file(str(prepared.folder / "train" / shard["file"])).read_all()
        for shard in shards
    ]
    kept = [names for table in tables for names in table["images"].to_pylist()]
    assert sorted(kept) == [[], [], [f"images/{file.name}"]]
    said = learnt(prepared, images)
    assert ("<|user|> <unk> w4 <|end|> <|assistant|> w5 <|end|>", "w5 <|end|>") in said


def test_a_run_on_what_is_only_prepared_is_refused_at_once(tmp_path: Path):
    file = tmp_path / "r.yaml"
    rows = "data: {train: [{path: a.jsonl, format: preference}]}"
    file.write_text(f"base: {{source: b}}\n{rows}\ntrain: {{steps: 1}}")
    with pytest.raises(RecipeError, match=r"data.train\[0\].format = preference: .*shoal prepare"):
        run(load(str(file)), open_display())
