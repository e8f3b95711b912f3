"""What rows of every shape become, and why some become nothing."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from launcher.prepare.shapes import Sample, guess, to_asked, to_sample
from launcher.prepare.shapes.guess import TELLS
from launcher.prepare.shapes.images import keep_in, name_of_image
from launcher.prepare.sources.recognised import recognised
from launcher.prepare.sources.source import find_sources
from launcher.prepare.unusable import Unusable
from recipes.base import Base
from recipes.data import Data, Source, steps
from recipes.data.shapes import COLUMNS
from recipes.recipe import Recipe
from recipes.train import Train

PLAIN = Recipe(
    name="r", base=Base(source="b"), data=Data(train=[Source(path="a.jsonl")]), train=Train(steps=1)
)
PNG = b"\x89PNG\r\n\x1a\nrest"
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}


def recipe(task: str = "causal_lm", **data: Any) -> Recipe:
    return dataclasses.replace(PLAIN, task=task, data=dataclasses.replace(PLAIN.data, **data))


def made(row: dict[str, Any], task: str = "causal_lm", **data: Any) -> Sample:
    sample = to_sample(row, recipe(task, **data))
    assert Sample.from_json(sample.to_json()) == sample
    return sample


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def assistant(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


NAN = {"a": float("nan")}
ASKED = [user("a"), assistant("b")]


def said(**row: Any) -> list[dict[str, Any]]:
    return made(row).messages or []


def test_alpaca():
    assert said(instruction="a", output="b") == ASKED
    assert said(instruction="a", input="", output="b", text="whatever") == ASKED
    assert said(instruction="a", input=float("nan"), output="b", system=float("nan")) == ASKED
    assert said(instruction="Add.", input="1 2", output="3") == [user("Add.\n1 2"), assistant("3")]
    whole = said(instruction="a", output="b", system="s", history=[["x", "y"]])
    assert whole == [system("s"), user("x"), assistant("y"), *ASKED]
    assert said(instruction="a", output="b", history='[["x", "y"]]')[:1] == [user("x")]


def test_sharegpt():
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    assert said(conversations=turns) == ASKED
    assert said(conversations=ASKED, system="s") == [system("s"), *ASKED]
    assert said(conversations=json.dumps(turns)) == ASKED
    call = json.dumps({"name": "weather", "arguments": {"city": "Rome"}})
    tools = [
        {"from": "system", "value": "s"},
        {"from": "human", "value": "a"},
        {"from": "function_call", "value": call},
        {"from": "observation", "value": "sunny"},
        {"from": "gpt", "value": "b"},
    ]
    sample = made({"conversations": tools, "tools": json.dumps([TOOL["function"]])})
    assert sample.messages == [
        system("s"),
        user("a"),
        assistant("", tool_calls=[CALL]),
        {"role": "tool", "content": "sunny"},
        assistant("b"),
    ]
    assert sample.tools == [TOOL]


def test_messages():
    call = {"id": "1", **CALL}
    written = {"id": "1", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    rows = [
        {"role": "developer", "content": "s"},
        user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        {"role": "assistant", "content": None, "tool_calls": [written], "tool_call_id": None},
        {"role": "tool", "content": "sunny", "tool_call_id": "1", "name": "weather"},
        assistant("c", reasoning_content="it is", weight=1, tool_calls=None),
        user("d"),
        assistant("e", train=False),
        user("f"),
        assistant("g", weight=0),
        user("h"),
        assistant("i", train=True),
    ]
    sample = made({"messages": rows, "tools": [TOOL]})
    assert sample.messages == [
        system("s"),
        user("ab"),
        assistant("", tool_calls=[call]),
        {"role": "tool", "content": "sunny", "tool_call_id": "1", "name": "weather"},
        assistant("c", reasoning_content="it is"),
        user("d"),
        assistant("e", train=False),
        user("f"),
        assistant("g", train=False),
        user("h"),
        assistant("i"),
    ]
    assert sample.tools == [TOOL]
    old = {"role": "assistant", "content": None, "function_call": written["function"]}
    assert said(messages=[user("a"), old])[1] == assistant("", tool_calls=[CALL])


def test_prompts_and_completions():
    assert made({"prompt": "a ", "completion": "b"}) == Sample(prompt="a ", text="b")
    assert made({"prompt": "a ", "response": "b"}) == Sample(prompt="a ", text="b")
    assert said(prompt=[user("a")], completion=[assistant("b")]) == ASKED
    assert said(prompt=[user("a")], completion="b") == ASKED


def test_texts_with_labels():
    causal = made({"text": "a", "labels": ["y", "x", "y"]})
    assert causal.messages == [user("a"), assistant("x, y")]
    task = "sequence_classification"
    for labels in (["y", "x"], "x;y", "y，x", "x | y"):
        assert made({"text": "a", "labels": labels}, task) == Sample(text="a", labels=["x", "y"])
    assert made({"text": "a", "labels": []}, task).labels == []
    assert made({"text": "a", "label": 1.0}, task).label == "1"
    assert made({"text": "a", "labels": 3}, task, columns={"label": "labels"}).label == "3"
    pair = Sample(text="a", text_pair="b", label="1")
    for names in (("text", "text_pair"), ("sentence1", "sentence2"), ("premise", "hypothesis")):
        assert made({names[0]: "a", names[1]: "b", "label": 1}, task) == pair
    # What a chat is made of is not looked at by a classification.
    row = {"text": "a", "label": "1", "messages": ASKED}
    assert made(row, task) == Sample(text="a", label="1")


def test_preferences():
    plain = made({"prompt": "a", "chosen": "b", "rejected": "c"})
    assert plain == Sample(prompt="a", text="b", rejected="c")
    whole = Sample(messages=ASKED, rejected=[user("a"), assistant("c")])
    worse = [assistant("c")]
    for row in (
        {"chosen": ASKED, "rejected": [user("a"), *worse]},
        {"prompt": [user("a")], "chosen": ASKED[1:], "rejected": worse},
        {"prompt": [user("a")], "chosen": ASKED, "rejected": [user("a"), *worse]},
        {"prompt": "a", "chosen": ASKED[1:], "rejected": worse},
        {"prompt": [user("a")], "chosen": "b", "rejected": "c"},
    ):
        assert made(row) == whole
    assert whole.only_prepared == "preference"
    with_system = made({"prompt": "a", "chosen": ASKED[1:], "rejected": worse}, system="s")
    assert with_system.rejected == [system("s"), user("a"), *worse]


def test_images(tmp_path: Path):
    image = {"type": "image"}
    text = {"type": "text", "text": "what?"}
    asked = Sample(messages=[user([image, text]), assistant("b")], images=["a.png"])
    for row in (
        {"messages": [user("what?"), assistant("b")], "images": ["a.png"]},
        {"messages": [user("<image>what?"), assistant("b")], "image": "a.png"},
        {"messages": [user([{"type": "image", "path": "a.png"}, text]), assistant("b")]},
        {"messages": [user([image, text]), assistant("b")], "images": [{"path": "a.png"}]},
        {
            "conversations": [{"from": "human", "value": "<image>\nwhat?"}, assistant("b")],
            "images": "a.png",
        },
    ):
        sample = made(row)
        assert sample.images == ["a.png"]
        assert sample.only_prepared == "image_text"
        if "conversations" not in row:
            assert sample == asked
    assert made({"messages": ASKED, "images": []}) == Sample(messages=ASKED)
    caption = made({"image": {"bytes": PNG, "path": None}, "text": "a cookie"})
    assert caption.messages == [user([image]), assistant("a cookie")]
    assert caption.images == [name_of_image(PNG)]
    assert name_of_image(PNG).startswith("images/")
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgpyZXN0"}}
    kept: list[bytes] = []

    def keep(data: bytes) -> str:
        kept.append(data)
        return "images/0.png"

    row = {"messages": [user([url, text]), assistant("b")]}
    assert to_sample(row, recipe(), keep_image=keep).images == ["images/0.png"]
    assert kept == [PNG]
    for _ in range(2):
        assert keep_in(tmp_path)(PNG) == name_of_image(PNG)
    [file] = tmp_path.rglob("*.png")
    assert file == tmp_path / name_of_image(PNG)
    assert file.read_bytes() == PNG


def test_columns_of_other_names():
    row = {"data": {"body": "a", "kind": {"name": "b"}}, "text": "no"}
    names = {"text": "data.body", "label": "data.kind.name"}
    assert made(row, columns=names).messages == ASKED
    both = {"data.body": "a", "data": {"body": "no"}}
    assert made(both, columns={"text": "data.body"}) == Sample(text="a")
    source = Source(path="a", columns={"text": "review"}, format="text")
    found = to_sample({"review": "a", "text": "no"}, recipe(columns={"text": "text"}), source)
    assert found == Sample(text="a")
    renamed = {"instruction": "q", "output": "a"}
    assert made({"q": "a", "a": "b"}, columns=renamed).messages == ASKED


def test_each_text_is_cleaned_and_nothing_else():
    clean = [steps.RemovePunctuation()]
    call = {**CALL, "id": "x.y"}
    rows = [
        user("a."),
        assistant("b!", reasoning_content="c?"),
        user("d"),
        assistant("", tool_calls=[call]),
    ]
    sample = made({"messages": rows, "tools": [TOOL]}, clean=clean)
    assert sample.messages == [
        user("a"),
        assistant("b", reasoning_content="c"),
        user("d"),
        assistant("", tool_calls=[call]),
    ]
    labelled = made({"text": "a.", "label": "b!"}, clean=clean)
    assert labelled.messages == [user("a"), assistant("b!")]
    both = made({"prompt": "a.", "chosen": "b.", "rejected": "c."}, clean=clean)
    assert both == Sample(prompt="a", text="b", rejected="c")
    # An answer that there is not is not too short either.
    long = [user("aaaa"), assistant("", tool_calls=[CALL])]
    assert made({"messages": long}, clean=[steps.Characters(min=3)]).messages == long


def test_prompts_of_the_recipe():
    row = {"text": "a", "stars": 4, "label": "good", "meta": {"lang": "en"}}
    options: dict[str, Any] = {"prompt": ["{text} ({meta.lang}, {stars}) {{}}"]}
    assert made(row, **options).messages == [user("a (en, 4) {}"), assistant("good")]
    options["answer"] = "It is {label}."
    assert made(row, **options).messages == [user("a (en, 4) {}"), assistant("It is good.")]
    assert to_asked({**row, "label": None}, recipe(**options)).messages == [user("a (en, 4) {}")]
    pair = {"premise": "a", "hypothesis": "b", "label": 0}
    prompt = ["{premise} {hypothesis}?"]
    assert made(pair, prompt=prompt, system="s").messages == [
        system("s"),
        user("a b?"),
        assistant("0"),
    ]
    options = {"prompt": ["What? {text}"]}
    image = made({"image": "a.png", "text": "x", "answer": "b"}, **options)
    asked = [{"type": "image"}, {"type": "text", "text": "What? x"}]
    assert image.messages == [user(asked), assistant("b")]
    with pytest.raises(Unusable, match=r"unknown column in prompt: no stars; columns: text, label"):
        made({"text": "a", "label": "b"}, prompt=["{stars} {text}"])
    with pytest.raises(Unusable, match="no text: text is NoneType"):
        made({"text": None, "label": "b"}, prompt=["{text}"])
    with pytest.raises(Unusable, match="no answer"):
        made({"text": "a"}, prompt=["{text}"])


def test_a_filter_sees_a_column_once_however_often_it_is_named():
    """With each prompt that names it the row would be longer, and repeat itself."""
    row = {"text": "one line of a text", "label": "good"}
    clean = [steps.Characters(min=18, max=18), steps.Repetition(min_words=0, top_ngrams=[])]
    prompts = ["Is this good? {text}", "{text}\n\nGood or bad?", "{text}?"]
    sample = made(row, clean=clean, prompt=prompts, answer="{text} is {label}")
    assert sample.messages is not None
    assert sample.messages[1] == assistant("one line of a text is good")
    with pytest.raises(Unusable, match="too few: 18"):
        made(row, clean=[steps.Characters(min=19)], prompt=prompts)


def test_which_prompt_is_taken_depends_on_what_it_shows():
    prompts = ["1 {text}", "2 {text}", "3 {text}"]
    taken = Counter()
    for number in range(300):
        row = {"id": number, "text": f"w{number}", "label": "b"}
        sample = made(row, prompt=prompts)
        assert sample.messages is not None
        again = to_asked({"text": row["text"]}, recipe(prompt=prompts))
        assert again.messages == sample.messages[:1]
        taken[sample.messages[0]["content"][0]] += 1
    assert all(70 < count < 130 for count in taken.values())


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": 5, "output": "b"}, "no text"),
        ({"instruction": "a", "output": None}, "no answer"),
        ({"instruction": "a", "output": " "}, "empty"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "bad history"),
        ({"instruction": "a", "output": "b", "history": "[["}, "bad history"),
        ({"prompt": "a", "completion": None}, "no answer"),
        ({"prompt": ["a"], "completion": "b"}, "bad message"),
        ({"conversations": [{"from": "robot", "value": "a"}]}, "bad message"),
        ({"conversations": [{"from": ["human"], "value": "a"}]}, "bad message"),
        ({"conversations": "[[[["}, "no messages"),
        ({"messages": [user("a"), assistant("b", train="no")]}, "bad message"),
        ({"messages": [user("a"), assistant("b", weight=0.5)]}, "bad message"),
        ({"messages": [user("a"), assistant("b", reasoning_content=1)]}, "bad message"),
        ({"messages": [user([{"type": "audio"}]), assistant("b")]}, "bad message"),
        ({"messages": [user(["a"]), assistant("b")]}, "bad message"),
        ({"messages": [user("a"), assistant(float("nan"))]}, "bad message"),
        ({"messages": [user("a"), assistant(None)]}, "bad message"),
        ({"messages": [user("a"), assistant(None, tool_calls=[5])]}, "bad tool call"),
        ({"messages": [user("a"), assistant(None, tool_calls={"a": {1}})]}, "bad tool call"),
        (
            {"messages": [user("a"), assistant("", function_call={"name": "f", "arguments": "{"})]},
            "bad tool call",
        ),
        (
            {"messages": [user("a"), {"from": "function_call", "value": '{"name": 1}'}]},
            "bad tool call",
        ),
        (
            {"messages": [user("a"), assistant("", tool_calls=[{"name": "f", "arguments": NAN}])]},
            "bad tool call",
        ),
        ({"messages": ASKED, "tools": "[" * 9999}, "bad tools"),
        ({"messages": ASKED, "tools": [{"type": "function"}]}, "bad tools"),
        ({"messages": [system("s"), assistant("b")]}, "no question"),
        ({"text": "a", "label": float("nan")}, "no label"),
        ({"text": "a", "label": ["b"]}, "no label"),
        ({"text": " ", "label": "b"}, "empty"),
        ({"text": "a", "labels": None}, "no label"),
        ({"text": "a", "labels": [{}]}, "no label"),
        ({"text": "a", "labels": []}, "empty"),
        ({"text": "a", "text_pair": "b", "label": "c"}, "no prompt"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "no preference"),
        ({"prompt": "a", "chosen": "b", "rejected": 5}, "no text"),
        ({"chosen": ASKED, "rejected": [user("c"), assistant("b")]}, "no preference"),
        ({"chosen": ASKED, "rejected": [*ASKED, user("c")]}, "no preference"),
        ({"prompt": "a", "chosen": [assistant("b")], "rejected": [user("b")]}, "no preference"),
        ({"image": b"nothing known", "text": "b"}, "bad image"),
        ({"image": None, "text": "b"}, "bad image"),
        ({"messages": [user("<image>"), assistant("b")], "images": []}, "bad image"),
        ({"image": "data:image/png;base64,#", "text": "b"}, "bad image"),
        ({"messages": [user("<image><image>"), assistant("b")], "images": ["a"]}, "bad image"),
        ({"text": "a\ud800"}, "half a character"),
        ({"messages": ASKED, "tools": [{"name": "a\udfff"}]}, "half a character"),
    ],
)  # fmt: skip
def test_rows_that_become_nothing(row: dict[str, Any], reason: str):
    with pytest.raises(Unusable) as caught:
        made(row)
    assert caught.value.reason == reason
    assert len(caught.value.detail) < 400


def test_a_shape_that_is_named_is_not_guessed():
    row = {"text": "a", "label": "b", "instruction": "c", "output": "d"}
    assert made(row, format="text") == Sample(text="a")
    assert made(row, format="text_label").messages == ASKED
    with pytest.raises(Unusable, match="no known column: no instruction; columns: text"):
        made({"text": "a"}, format="alpaca")
    assert to_asked({"text": "a"}, recipe(format="alpaca")) == Sample(text="a")
    assert to_asked({"instruction": "a"}, recipe(format="text")).messages == ASKED[:1]
    source = Source(path="a", format="alpaca")
    assert to_sample(row, recipe(format="text"), source).messages == [user("c"), assistant("d")]


def test_what_is_equal_and_what_asks_the_same():
    first, other = made({"messages": ASKED}), made({"messages": [user("a"), assistant("c")]})
    assert first.digest() == made({"instruction": "a", "output": "b"}).digest()
    assert first.digest() != other.digest()
    assert first.question_digest() == other.question_digest()
    flagged = made({"messages": [*ASKED, user("c"), assistant("d")]})
    unlearnt = made(
        {"messages": [user("a"), assistant("b", train=False), user("c"), assistant("d")]}
    )
    assert flagged.question_digest() == unlearnt.question_digest()
    assert flagged.digest() != unlearnt.digest()
    assert made({"messages": ASKED, "tools": [TOOL]}).question_digest() != first.question_digest()
    plain = Sample(prompt="a", text="b")
    assert plain.question_digest() == Sample(prompt="a", text="c").question_digest()
    pair = Sample(text="a", text_pair="b", label="c")
    assert pair.question_digest() == Sample(text="a", text_pair="b", label="d").question_digest()
    assert pair.question_digest() != Sample(text="a", text_pair="c").question_digest()
    assert made({"messages": [system("s"), *ASKED]}).texts() == "a\nb"
    assert pair.texts() == "a\nb"


def test_the_guess_is_told():
    rows = [{"instruction": "a", "output": "b"}] * 3
    assert guess(rows, recipe(), None).told == "alpaca (columns instruction, output)"
    mixed = guess([*rows, {"text": "a"}, {"body": 1}], recipe(), None)
    assert mixed.counts == {"alpaca": 3, "text": 1, "no known column": 1}
    assert mixed.told.endswith("of the first 5 rows also 1 text, 1 no known column")
    renamed = recipe(columns={"text": "review", "label": "stars"})
    named = guess([{"review": "a", "stars": 1}], renamed, None)
    assert named.told == "text_label (columns review, stars)"
    assert guess([{"body": 1, "id": 2}], recipe(), None).told == "no known shape (columns body, id)"
    prompt = recipe(prompt=["{text} {stars}"], columns={"text": "review"})
    rows = [{"review": "a", "stars": 1}]
    assert guess(rows, prompt, None).told == "data.prompt (columns review, stars)"
    lacks = "data.prompt (columns review); the rows have no stars"
    assert guess([{"review": "a"}], prompt, None).told == lacks
    assert guess([], recipe(), None).told == "no known shape (columns none)"


ROWS: list[dict[str, Any]] = [
    {"text": "a", "label": "b", "labels": ["c"], "text_pair": "d"},
    {"messages": [system("s"), *ASKED, user("c"), assistant("d", train=False)], "tools": [TOOL]},
    {"messages": [user("a"), assistant(None, tool_calls=[CALL])], "system": "s"},
    {"messages": [user([{"type": "image", "path": "a"}]), assistant("b", reasoning_content="c")]},
    {"conversations": [{"from": "human", "value": "a<image>"}, assistant("b")], "image": "a.png"},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{}"}]},
    {"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]], "system": "s"},
    {"prompt": "a", "completion": "b"},
    {"prompt": [user("a")], "completion": [assistant("b")], "tools": "[]"},
    {"prompt": "a", "chosen": "b", "rejected": "c"},
    {"prompt": [user("a")], "chosen": ASKED, "rejected": [user("a"), assistant("c")]},
    {"image": {"bytes": PNG, "path": None}, "text": "a"},
]
ODD = [
    *(
        "",
        " ",
        "a",
        "user",
        "{}",
        "[]",
        "[[",
        "\ud800",
        "\x00",
        "<image>",
        "data:;base64,",
        "é" * 99,
    ),
    *(None, True, 0, -1, 10**30, float("nan"), float("inf"), b"\xff", PNG, object, [], {}, [[]]),
    *([None], {"a": {}}, [user("a")], {"role": "user"}, {"type": "image"}, {"bytes": b""}),
]


def broken(value: Any, chance: random.Random) -> Any:
    """The value with something in it replaced, left out, or said twice."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        rest = {name: item for name, item in value.items() if name != key}
        if chance.random() < 0.15:
            return rest
        if chance.random() < 0.1:
            return {**rest, chance.choice(["type", "content", "from", "train"]): value[key]}
        return {**value, key: broken(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        place = chance.randrange(len(value))
        if chance.random() < 0.1:
            return [*value, value[place]]
        return [*value[:place], broken(value[place], chance), *value[place + 1 :]]
    return chance.choice(ODD)


def test_what_comes_before_the_first_row_of_a_file_is_read_over(tmp_path: Path):
    """A JSON file may tell much of its rows first, and a file begin with rows that are none."""
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"about": "x" * 2**21, "data": [7, {"text": "a", "label": "b"}]}))
    asked = recipe(train=[Source(path=str(file))])
    told = list(recognised(asked, find_sources(asked.data, tmp_path), []))
    assert told == ["rows: text_label (columns text, label), from rows.json"]


def test_a_recipe_can_name_the_columns_of_every_shape():
    assert {name for tell in TELLS for name in tell.columns} <= {*COLUMNS}


def test_tools_that_the_chat_template_does_not_write_are_told(tmp_path: Path):
    """Rows of which none calls a tool are learnt from as if there were none to call."""
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    chat = [user("What is it like in Rome?"), {"role": "assistant", "content": "Where?"}]
    rows = [{"messages": chat, "tools": []}, {"messages": chat, "tools": json.dumps(tools)}]
    file = tmp_path / "chats.jsonl"
    asked = recipe(train=[Source(path=str(file))])
    told: dict[str, list[str]] = {}
    for count, template in ((2, "{{ messages }}"), (2, "{{ tools }}"), (1, "{{ messages }}")):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows[:count]))
        found = find_sources(asked.data, tmp_path)
        told[f"{count} {template}"] = list(recognised(asked, found, [template]))
    first = "chats: messages (columns messages), from chats.jsonl"
    assert told["2 {{ messages }}"][0] == first
    assert "rows name tools, which the chat template does not write" in told["2 {{ messages }}"][1]
    assert told["2 {{ tools }}"] == told["1 {{ messages }}"] == [first]


def test_files_from_which_no_row_comes_are_told(tmp_path: Path):
    """A part that was packed in another way would be missing without a word."""
    for name in ("README.md", ".hidden", "a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"text": "a"}\n')
    asked = recipe(train=[Source(path=str(tmp_path), name="rows")])
    first = "rows: text (columns text), from a.jsonl and 1 more"
    assert list(recognised(asked, find_sources(asked.data, tmp_path), [])) == [first]
    (tmp_path / "c.jsonl.bz2").touch()
    told = list(recognised(asked, find_sources(asked.data, tmp_path), []))
    assert told == [
        first,
        "rows: no rows are read from 1 file of another kind, such as c.jsonl.bz2",
    ]
    (tmp_path / "d.pdf").touch()
    asked = recipe(train=[Source(path=f"{tmp_path}/?.*", name="rows")])
    told = list(recognised(asked, find_sources(asked.data, tmp_path), []))
    assert told == [
        first,
        "rows: no rows are read from 2 files of other kinds, such as c.jsonl.bz2",
    ]


def test_whatever_a_row_holds_it_is_a_sample_or_is_told():
    chance = random.Random(0)
    kept, reasons = 0, Counter()
    shapes = ("messages", "sharegpt", "alpaca", "preference", "image_text", "text_pair")
    data: list[dict[str, Any]] = [{}, {"prompt": ["{text} {prompt}"]}, {"system": "s"}]
    recipes = [recipe(**options) for options in [*data, *({"format": name} for name in shapes)]]
    recipes += [recipe("sequence_classification"), recipe("sequence_classification", labels=["a"])]
    for number in range(3000):
        row = broken(ROWS[number % len(ROWS)], chance)
        for _ in range(chance.randint(0, 2)):
            row = broken(row, chance) if isinstance(row, dict) else {"text": row}
        for chosen in recipes if isinstance(row, dict) else []:
            try:
                sample = to_sample(row, chosen)
            except Unusable as error:
                reasons[error.reason] += 1
                continue
            kept += 1
            assert Sample.from_json(sample.to_json()) == sample
            sample.to_json().encode("utf-8")
            assert len(sample.digest()) == len(sample.question_digest()) == 16
    assert kept > 1000
    assert len(reasons) > 14
