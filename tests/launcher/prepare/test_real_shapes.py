"""Real data in every shape of rows and several kinds of files, from the file to the tokens."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import jieba
import pytest

from recipes.data import Source, steps
from recipes.data.shapes import Shape
from support import real_rows
from support.chat_styles import style
from support.prepared import (
    check_accounted,
    make_base,
    places,
    recipe,
    run,
    said,
    set_aside,
    write,
)
from trainer.split import open_split

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

END = "<|im_end|>"
_PLAIN_CHINESE = re.compile(r"[\u4e00-\u9fd5 -{}~，。！？、：；“”（）…]+")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return style("images")


@pytest.fixture(scope="module")
def reviews() -> list[dict[str, str]]:
    """Of hotels, books and computers; mixed, for the file has all negative ones first."""
    text = (real_rows.sample("reviews_zh") / "reviews.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
    random.Random(0).shuffle(rows)
    return rows


def write_shapes(
    folder: Path, reviews: list[dict[str, str]]
) -> dict[str, tuple[Source, Shape, list[list[str]]]]:
    """Sources of all shapes that ask for no data.prompt: by the name of the file the entry, what
    it should be taken for, and of each row what is to be learnt from it."""
    zh, en = real_rows.chats("chinese"), real_rows.chats("english")
    taught = real_rows.definitions()[:400]
    speech = [*real_rows.parts_of_speech().items()][:300]
    idioms = real_rows.idioms(300)
    photographs = real_rows.photographs()
    made: dict[str, tuple[list[dict[str, Any]], Shape, list[list[str]], dict[str, Any]]] = {
        "reviews.csv.gz": (
            [{"review": row["text"], "verdict": row["label"], "n": "1"} for row in reviews[:500]],
            "text_label",
            [[row["label"] + END] for row in reviews[:500]],
            {"columns": {"text": "review", "label": "verdict"}},
        ),
        "zh.jsonl": (
            [{"messages": real_rows.messages(turns)} for turns in zh],
            "messages",
            [["".join(turn + END for turn in turns[1::2])] for turns in zh],
            {},
        ),
        "en.parquet": (
            [
                {
                    "conversations": [
                        {"from": ("human", "gpt")[n % 2], "value": turn}
                        for n, turn in enumerate(turns)
                    ]
                }
                for turns in en
            ],
            "sharegpt",
            [["".join(turn + END for turn in turns[1::2])] for turns in en],
            {},
        ),
        "words.arrow": (
            [{"prompt": f"{word}:", "completion": f" {meaning}."} for word, meaning in taught],
            "prompt_completion",
            [[f" {meaning}.{END}"] for _, meaning in taught],
            {},
        ),
        "glosses.txt": (
            [{"text": f"{word}: {meaning}"} for word, meaning in taught],
            "text",
            [[f"{word}: {meaning}{END}"] for word, meaning in taught],
            {},
        ),
        "speech.jsonl.gz": (
            [{"text": word, "labels": parts} for word, parts in speech],
            "text_labels",
            [[", ".join(parts) + END] for _, parts in speech],
            {},
        ),
        "idioms.csv": (
            [
                {"instruction": "解释成语", "input": row["word"], "output": row["explanation"]}
                for row in idioms
            ],
            "alpaca",
            [[row["explanation"] + END] for row in idioms],
            {},
        ),
        "better.jsonl": (
            [
                {"prompt": one[0], "chosen": one[1], "rejected": other[1]}
                for one, other in pairwise(zh)
            ],
            "preference",
            [[one[1] + END, other[1] + END] for one, other in pairwise(zh)],
            {},
        ),
        "pictures.parquet": (
            [{"image": data, "text": shown} for data, shown in photographs],
            "image_text",
            [[shown + END] for _, shown in photographs],
            {},
        ),
    }
    return {
        name: (Source(path=str(write(folder / name, rows)), **more), shape, learnt)
        for name, (rows, shape, learnt, more) in made.items()
    }


def test_every_shape(
    base: Path, tokenizer: Any, reviews: list[dict[str, str]], tmp_path: Path
) -> None:
    """What is learnt of each row is its answer, whole and alone; no row is lost."""
    made = write_shapes(tmp_path, reviews)
    movies = real_rows.sample("movie_reviews") / "held_out.jsonl"
    train = [source for source, _, _ in made.values()]
    train.append(Source(path=str(movies), name="movies", limit=40))
    prepared, told = run(recipe(train, held_out_fraction=0.05, unit_mb=1), base, tmp_path)
    shapes = [line.split(": ")[1].split(" ")[0] for line in told[: len(train)]]
    assert shapes == [*(shape for _, shape, _ in made.values()), "messages"]
    sizes = {name: len(learnt) for name, (_, _, learnt) in made.items()} | {movies.name: 40}
    check_accounted(prepared, sizes)
    verdicts = [json.loads(line) for line in movies.read_text("utf-8").split("\n")[:40]]
    answers = {
        (movies.name, n): [row["messages"][-1]["content"] + END]
        for n, row in enumerate(verdicts, 1)
    }
    for name, (_, _, learnt) in made.items():
        answers |= {(name, number): texts for number, texts in enumerate(learnt, 1)}
    learnt = said(prepared, tokenizer, "train") | said(prepared, tokenizer, "held_out")
    assert len(learnt) > 2500
    for place, sequences in learnt.items():
        taught = [text for _, text in sequences]
        if place[0] == "glosses.txt":  # nothing comes before the first token to predict it
            [given] = [given for given, _ in sequences]
            assert [given] == answers[place] and given.endswith(taught[0])
            assert len(taught[0]) > len(given) - 12
        elif place[0] == "better.jsonl":  # a text that is gone on with
            assert taught == answers[place]
        else:
            assert taught == answers[place], place
    by_source = prepared.manifest["by_source"]
    assert {name: counts["rows"] for name, counts in by_source.items()} == {
        "reviews": 500, "zh": len(made["zh.jsonl"][2]), "en": len(made["en.parquet"][2]),
        "words": 400, "glosses": 400, "speech": 300, "idioms": 300,
        "better": len(made["better.jsonl"][2]), "pictures": 2, "movies": 40,
    }  # fmt: skip
    assert prepared.manifest["only_prepared"] == ["image_text", "preference"]
    pictures = [data for data, _ in real_rows.photographs()]
    kept = [file.read_bytes() for file in (prepared.folder / "images").iterdir()]
    assert sorted(kept) == sorted(pictures)
    # The corpus has 1,040 rows of 10 different ones in one file alone.
    english = [json.dumps(turns) for turns in real_rows.chats("english")]
    copies = len(english) - len(set(english))
    assert copies > 1000
    reasons = Counter(
        row["reason"] for (name, _), row in set_aside(prepared).items() if name == "en.parquet"
    )
    assert reasons["duplicate"] == copies
    assert set(reasons) <= {"duplicate", "also held out"}


def test_prompts_over_the_columns_of_a_file_as_it_is(
    base: Path, tokenizer: Any, tmp_path: Path
) -> None:
    rows = real_rows.idioms(1500)
    chosen = recipe(
        [Source(path=str(real_rows.idioms_file()), limit=1500)],
        prompt=["成语“{word}”（{pinyin}）是什么意思？", "请解释：{word}"],
        answer="{explanation}{derivation}",
        system="你是一本词典。",
        held_out_fraction=0.1,
    )
    prepared, _ = run(chosen, base, tmp_path)
    check_accounted(prepared, {"idiom.csv": 1500})
    found = said(prepared, tokenizer, "train") | said(prepared, tokenizer, "held_out")
    ways = Counter()
    for (_, number), [(given, taught)] in found.items():
        row = rows[number - 1]
        assert taught == row["explanation"] + row["derivation"] + END
        asked = [f"成语“{row['word']}”（{row['pinyin']}）是什么意思？", f"请解释：{row['word']}"]
        texts = [
            f"<|im_start|>system\n你是一本词典。{END}\n<|im_start|>user\n{text}{END}\n"
            f"<|im_start|>assistant\n{taught}\n"
            for text in asked
        ]
        ways[texts.index(given)] += 1
    assert ways.total() == 1500 - len(set_aside(prepared)) > 1400
    assert min(ways.values()) > 600


def test_classes_of_texts_and_of_pairs(
    base: Path, tokenizer: Any, reviews: list[dict[str, str]], tmp_path: Path
) -> None:
    """Two texts with a label, and one, become token ids and the id of the label."""
    nouns, verbs = real_rows.definitions("noun")[:300], real_rows.definitions("verb")[:300]
    pairs = [
        {"sentence1": word, "sentence2": meaning, "label": part}
        for part, entries in (("noun", nouns), ("verb", verbs))
        for word, meaning in entries
    ]
    files = [write(tmp_path / "pairs.parquet", pairs), write(tmp_path / "one.csv", reviews[:600])]
    chosen = recipe(
        [Source(path=str(file)) for file in files],
        task="sequence_classification",
        labels=["negative", "positive", "verb", "noun"],
    )
    prepared, _ = run(chosen, base, tmp_path)
    check_accounted(prepared, {"pairs.parquet": 600, "one.csv": 600})
    assert prepared.manifest["labels"] == ["negative", "positive", "verb", "noun"]
    rows = {"pairs.parquet": pairs, "one.csv": reviews[:600]}
    split = open_split(prepared.folder, "train")
    for index, [(name, number)] in enumerate(places(prepared, "train")):
        row = rows[name][number - 1]
        assert prepared.manifest["labels"][split[index].label] == row["label"]
        texts = [row[column] for column in ("sentence1", "sentence2", "text") if column in row]
        expected = tokenizer(*texts)["input_ids"]
        assert split[index].input_ids.tolist() == expected


def test_chinese_is_cut_as_jieba_cuts_it(
    base: Path, tokenizer: Any, reviews: list[dict[str, str]], tmp_path: Path
) -> None:
    """Real reviews among English ones and traditional Chinese: the language filter leaves Chinese,
    which becomes simplified words; texts that are equal after that stay once."""
    english = (real_rows.sample("movie_reviews") / "train.jsonl").read_text("utf-8")
    films = [
        json.loads(line)["messages"][1]["content"]
        for line in english.removesuffix("\n").split("\n")
    ]
    traditional = [turn for turns in real_rows.chats("traditionalchinese") for turn in turns]
    simplified = {turn for turns in real_rows.chats("chinese") for turn in turns}
    # None of jieba's white space, which texts of one line with single spaces leave.
    texts = [" ".join(row["text"].split()) for row in reviews[:4000]]
    files = {"zh": texts, "films": films, "traditional": traditional}
    train = [
        Source(path=str(write(tmp_path / f"{name}.jsonl", [{"text": text} for text in found])))
        for name, found in files.items()
    ]
    clean = [
        steps.Language(keep=["zh"]),
        steps.SimplifyChinese(),
        steps.Segment(separator="|"),
    ]
    prepared, _ = run(recipe(train, clean=clean), base, tmp_path)
    check_accounted(prepared, {f"{name}.jsonl": len(found) for name, found in files.items()})
    given = {
        place: text.removesuffix(END)
        for place, [(text, _)] in said(prepared, tokenizer, "train").items()
    }
    aside = set_aside(prepared)
    reasons = {
        name: Counter(row["reason"] for (file, _), row in aside.items() if file == f"{name}.jsonl")
        for name in files
    }
    long = sum(len(text) >= 20 for text in films)
    assert reasons["films"]["language: another"] >= 0.99 * long
    assert reasons["zh"]["language: another"] < 0.01 * len(texts)
    compared = 0
    for (name, number), text in given.items():
        original = texts[number - 1] if name == "zh.jsonl" else ""
        # jieba cuts what is neither Chinese nor ASCII into characters, shoal into words.
        if _PLAIN_CHINESE.fullmatch(original) and original.replace(" ", "") == text.replace(
            "|", ""
        ):
            assert text.split("|") == [word for word in jieba.cut(original) if word != " "]
            compared += 1
    assert compared > 3000
    # Half of the traditional corpus is, in simplified characters, word for word the simplified one.
    became = [
        (traditional[number - 1], text.replace("|", ""))
        for (name, number), text in given.items()
        if name == "traditional.jsonl"
    ]
    plain = {turn.replace(" ", "") for turn in simplified}
    assert sum(text in plain and text != before for before, text in became) > 400


def test_each_text_stays_once(base: Path, reviews: list[dict[str, str]], tmp_path: Path) -> None:
    texts = [row["text"] for row in reviews[:6000]]
    filled = [text for text in texts if text.strip()]
    file = write(tmp_path / "rows.jsonl", [{"text": text} for text in texts])
    prepared, _ = run(recipe([Source(path=str(file))], held_out_fraction=0.1), base, tmp_path)
    rejected = prepared.manifest["rejected"]
    assert rejected["duplicate"] == len(filled) - len(set(filled)) > 500
    kept = [
        texts[row - 1] for split in ("train", "held_out") for [(_, row)] in places(prepared, split)
    ]
    assert sorted(kept) == sorted(set(filled))


def test_what_is_held_out_stays_so_when_data_is_added(
    base: Path, reviews: list[dict[str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    before, after = [], []
    for count, found in ((1500, before), (4000, after)):
        write(file, reviews[:count])
        chosen = recipe(
            [Source(path=str(file), format="text")], held_out_fraction=0.1, too_long="truncate"
        )
        prepared, _ = run(chosen, base, tmp_path)
        for split in ("train", "held_out"):
            rows = [number for [(_, number)] in places(prepared, split)]
            found.append({reviews[number - 1]["text"] for number in rows})
    assert before[0] < after[0] and before[1] < after[1]
    assert not after[0] & after[1]
    assert len(after[1]) == pytest.approx(0.1 * len(after[0] | after[1]), rel=0.15)


def test_a_column_says_what_is_held_out(base: Path, tmp_path: Path) -> None:
    words = real_rows.definitions()[:900]
    parts = ("train", "validation", "test")
    rows = [
        {"word": word, "meaning": meaning, "split": parts[0 if n % 9 else 1 + n // 9 % 2]}
        for n, (word, meaning) in enumerate(words)
    ]
    file = write(tmp_path / "rows.parquet", rows)
    chosen = recipe(
        [Source(path=str(file), columns={"prompt": "word", "completion": "meaning"})],
        held_out_column="split",
    )
    prepared, _ = run(chosen, base, tmp_path)
    check_accounted(prepared, {"rows.parquet": 900})
    for split in ("train", "held_out"):
        numbers = [number for [(_, number)] in places(prepared, split)]
        said_so = {rows[number - 1]["split"] == "train" for number in numbers}
        assert said_so == {split == "train"}
    aside = set_aside(prepared)
    assert len(aside) < 60
    held_out = {row["word"] for row in rows if row["split"] != "train"}
    for (_, number), line in aside.items():
        if line["reason"] == "also held out":
            assert rows[number - 1]["word"] in held_out


@pytest.mark.parametrize(
    ("mix", "taken"),
    [
        # 300 : 200 : 50 rows. Nothing lost: the 300 of weight 1.5 ask for 200 a unit of weight.
        ("repeat", {"idioms": 300, "words": 500, "films": 100}),
        # Nothing twice: the 200 of weight 2.5 give no more than 80 a unit of weight.
        ("cut", {"idioms": 120, "words": 200, "films": 40}),
    ],
)
def test_weights_are_met_exactly(
    base: Path, tmp_path: Path, mix: str, taken: dict[str, int]
) -> None:
    movies = real_rows.sample("movie_reviews")
    idioms = [
        {"prompt": row["word"], "completion": row["explanation"]} for row in real_rows.idioms(300)
    ]
    words: dict[str, str] = dict(real_rows.definitions()[500:900])
    taught = [{"text": f"{word}: {meaning}"} for word, meaning in words.items()][:200]
    train = [
        Source(path=str(write(tmp_path / "idioms.csv", idioms)), name="idioms", weight=1.5),
        Source(path=str(write(tmp_path / "w.txt.gz", taught)), name="words", weight=2.5),
        Source(path=str(movies / "train.jsonl"), name="films", weight=0.5, limit=50),
        Source(path=str(movies / "held_out.jsonl"), name="as they are", limit=7),
    ]
    chosen = recipe(train, mix=mix, packing=True, sequence_length=1024)
    prepared, _ = run(chosen, base, tmp_path / "one")
    assert prepared.manifest["rejected"] == {}
    counts = prepared.manifest["by_source"]
    assert {name: c["train"]["samples"] + c["train"]["repeated"] for name, c in counts.items()} == {
        **taken,
        "as they are": 7,
    }
    ids = Counter(place for row in places(prepared, "train") for place in row)
    files = {"idioms": "idioms.csv", "words": "w.txt.gz", "films": "train.jsonl"}
    have = {"idioms": 300, "words": 200, "films": 50}
    for name, file in files.items():
        times = [ids[file, number] for number in range(1, have[name] + 1)]
        assert sum(times) == taken[name]
        assert max(times) - min(times) <= 1  # spread evenly
    again, _ = run(chosen, base, tmp_path / "two")
    assert again.manifest["splits"] == prepared.manifest["splits"]  # the digests of all shards
