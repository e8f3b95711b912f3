"""Prepared data as it is shown: on a terminal, as a page, as JSON."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from launcher import prepared_summary
from launcher.commands.exits import status_of
from launcher.inspection.command import Seen, Wanted, inspect, look, show
from launcher.inspection.decoder import Decoder, Piece
from launcher.inspection.figures import shards_step
from launcher.inspection.histogram import histogram
from launcher.inspection.page import page_of
from launcher.inspection.place import Place, find
from launcher.inspection.readable import middle_left_out, visible
from launcher.prepare.found import Prepared
from launcher.prepare.pipeline import prepare
from recipes.base import Base
from recipes.data import Data, Source
from recipes.errors import BaseModelError, DataError, RecipeError
from recipes.recipe import Recipe
from recipes.train import Train
from support import tiny
from support.browser import opened
from trainer.split import SPLITS

HOSTILE = "{</pre><script>w1</script>\x1b[2J"
PLAIN = Wanted(samples=3, seed=0, split=None, row=None, sample=None, rejected=False, reason=None)


def wanted(**changes: Any) -> Wanted:
    return dataclasses.replace(PLAIN, **changes)


@dataclass(frozen=True)
class Made:
    """A tiny prepared dataset, and how it was told."""

    cache: Path
    recipe: Recipe
    base: Path
    prepared: Prepared
    told: list[str]
    rows: dict[str, list[dict[str, Any]]]

    @property
    def place(self) -> Place:
        return Place(folder=self.prepared.folder, manifest=self.prepared.manifest)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Made:
    """Two sources, packed, some rows held out, a few set aside for several reasons."""
    folder = tmp_path_factory.mktemp("inspected")
    tiny.make_tokenizer(folder / "base")
    rows: dict[str, list[dict[str, Any]]] = {
        "问答.jsonl": [
            {"text": f"w{n % 100} w{n // 100} w2", "label": f"w{n % 7}"} for n in range(150)
        ],
        "chats.jsonl": [
            {
                "messages": [
                    {"role": "user", "content": f"w{n} w99"},
                    {"role": "assistant", "content": f"w{n} w98"},
                ]
            }
            for n in range(40)
        ],
    }
    rows["问答.jsonl"][10] = {"text": None, "label": "w1"}
    rows["问答.jsonl"][20] = rows["问答.jsonl"][7]
    rows["chats.jsonl"][5]["messages"][0]["content"] = " ".join(["w1"] * 80)
    for name, told_rows in rows.items():
        lines = [json.dumps(row) for row in told_rows]
        if name == "问答.jsonl":
            lines[30] = HOSTILE
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
        os.utime(folder / name, (1e9, 1e9))
    recipe = Recipe(
        name="mine",
        base=Base(source=str(folder / "base")),
        data=Data(
            train=[Source(path=str(folder / name)) for name in rows],
            held_out_fraction=0.1,
            sequence_length=64,
            packing=True,
        ),
        train=Train(steps=1),
    )
    told: list[str] = []
    prepared = prepare(
        recipe,
        base_folder=folder / "base",
        cache=folder / "cache",
        progress=lambda *_, rows=0: None,
        tell=told.append,
    )
    return Made(folder / "cache", recipe, folder / "base", prepared, told, rows)


def text_of(seen: Seen, chosen: Wanted = PLAIN, *, terminal: bool = False) -> str:
    stream = io.StringIO()
    colours: Any = "standard" if terminal else None
    console = Console(
        file=stream, force_terminal=terminal, color_system=colours, width=120, highlight=False
    )
    show(console, seen, chosen)
    return stream.getvalue()


def learnt(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces if piece.learnt)


def test_what_the_sources_were_taken_for_is_told(made: Made):
    assert made.told == [
        "问答: text_label (columns text, label), from 问答.jsonl",
        "chats: messages (columns messages), from chats.jsonl",
    ]


def test_what_came_of_it_is_told(made: Made):
    lines = list(prepared_summary.lines(made.prepared))
    train = made.prepared.manifest["splits"]["train"]
    assert lines[0].startswith(f"Prepared {train['samples']} training samples in {train['rows']} ")
    assert re.fullmatch(r"  by source: \d+ 问答, \d+ chats", lines[1])
    assert re.fullmatch(r"  padding \d+\.\d\d%", lines[2])
    key = made.prepared.folder.name[:12]
    assert lines[3] == (
        "  set aside: 1 duplicate, 1 no text, 1 not JSON, 1 too long; look at them with: "
        f"shoal inspect {key} --rejected"
    )
    no_text, not_json, too_long = lines[4:]
    row = '{"text": null, "label": "w1"}'
    assert no_text == f"    no text, such as 问答.jsonl row 11: text is NoneType: {row}"
    assert not_json.startswith("    not JSON, such as 问答.jsonl row 31: ")
    assert not_json.endswith(visible(HOSTILE))
    assert too_long.startswith("    too long, such as chats.jsonl row 6: ")
    many = made.prepared.manifest | {
        "rejected": {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6},
        "examples": {},
    }
    last = list(prepared_summary.lines(dataclasses.replace(made.prepared, manifest=many)))[3]
    assert "6 f, 5 e, 4 d, 3 c and 3 for 2 other reasons;" in last
    nothing = {"samples": 0, "repeated": 0}
    sources = made.prepared.manifest["by_source"] | {
        "lost": {"train": nothing, "held_out": nothing},
        "asked later": {"train": nothing, "held_out": {"samples": 7}},
    }
    with_lost = made.prepared.manifest | {"by_source": sources}
    listed = list(prepared_summary.lines(dataclasses.replace(made.prepared, manifest=with_lost)))[1]
    assert listed == lines[1] + ", 0 lost"


def test_an_error_that_quotes_a_row_gives_a_terminal_no_orders(capsys: pytest.CaptureFixture[str]):
    def fail() -> None:
        raise DataError(f"a row:\n{HOSTILE}")

    assert status_of(fail) == 1
    assert capsys.readouterr().err == f"shoal: error: a row:\n{visible(HOSTILE)}\n"


def test_a_source_that_changed_in_secret_is_found_with_verify(made: Made, tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": f"w{n} w5"}) + "\n" for n in range(20)))
    os.utime(file, (1e9, 1e9))
    recipe = dataclasses.replace(made.recipe, data=Data(train=[Source(path=str(file))]))
    told: list[str] = []

    def again(*, verify: bool) -> Prepared:
        return prepare(
            recipe,
            base_folder=made.base,
            cache=tmp_path,
            progress=lambda *_, rows=0: None,
            verify=verify,
            tell=told.append,
        )

    first = again(verify=False)
    assert first.fresh
    told.clear()
    file.write_text(file.read_text().replace("w5", "w6"))
    os.utime(file, (1e9, 1e9))
    assert not again(verify=False).fresh
    assert told == []
    found = again(verify=True)
    assert found.fresh
    assert found.folder != first.folder
    assert told[0].startswith(f"{file}: has other bytes than when it was last read, though")


def test_figures_add_up(made: Made):
    figures = look(made.place, PLAIN).figures
    assert figures is not None
    manifest = made.prepared.manifest
    splits = manifest["splits"]
    assert [source.name for source in figures.sources] == ["问答", "chats"]
    assert [source.rows for source in figures.sources] == [150, 40]
    assert figures.total.samples == splits["train"]["samples"]
    assert figures.total.held_out == splits["held_out"]["samples"] > 0
    assert figures.total.tokens == splits["train"]["tokens"] + splits["held_out"]["tokens"]
    assert figures.total.set_aside == 4
    assert {reason.name: dict(reason.by_source) for reason in figures.reasons} == {
        "duplicate": {"问答": 1},
        "no text": {"问答": 1},
        "not JSON": {"问答": 1},
        "too long": {"chats": 1},
    }
    examples = {reason.name: reason.examples for reason in figures.reasons}
    assert examples.pop("duplicate") == ()  # which the recipe asks for
    assert {name: [one["row"] for one in told] for name, told in examples.items()} == {
        "no text": [11],
        "not JSON": [31],
        "too long": [6],
    }
    assert examples["not JSON"][0]["text"] == HOSTILE
    assert figures.per_sample is not None
    assert figures.per_sequence is not None
    assert figures.per_sample.total == splits["train"]["samples"]
    assert figures.per_sequence.total == splits["train"]["rows"]
    mean = splits["train"]["tokens"] / splits["train"]["samples"]
    assert figures.per_sample.mean == pytest.approx(mean)


def test_samples_are_shown_as_the_model_sees_them(made: Made):
    """All of every sequence: what is learnt is the answer of the row that is named."""
    seen: set[int] = set()
    for split in SPLITS:
        for row in range(made.prepared.manifest["splits"][split]["rows"]):
            (sequence,) = look(made.place, wanted(split=split, row=row)).sequences
            assert sequence.left == 0
            for sample in sequence.samples:
                seen.add(sample.id)
                rows = made.rows[Path(sample.origin.file).name]
                told = rows[sample.origin.row - 1]
                chat = told.get("messages") or [
                    {"role": "user", "content": told["text"]},
                    {"role": "assistant", "content": told["label"]},
                ]
                text = "".join(piece.text for piece in sample.pieces)
                assert text.split() == [
                    word
                    for message in chat
                    for word in (f"<|{message['role']}|>", *message["content"].split(), "<|end|>")
                ]
                assert learnt(sample.pieces).split() == [*chat[-1]["content"].split(), "<|end|>"]
                assert all(
                    piece.special == piece.text.strip().startswith("<|") for piece in sample.pieces
                )
    assert len(seen) == 190 - 4


def test_on_a_terminal_what_is_learnt_is_green(made: Made):
    seen = look(made.place, PLAIN)
    text = text_of(seen, terminal=True)
    sample = seen.sequences[0].samples[0]
    said = next(piece.text for piece in sample.pieces if piece.learnt and not piece.special)
    assert f"\x1b[32m{said}\x1b[0m" in text
    assert f"(sample {sample.id}): {sample.tokens} tokens, {sample.learnt} learnt" in text
    assert "is green; the rest is given to it" in text
    assert "问答" in text
    assert "█" in text


def test_without_colours_what_is_learnt_is_marked(made: Made):
    seen = look(made.place, wanted(samples=1))
    text = text_of(seen)
    assert "\x1b" not in text
    sample = seen.sequences[0].samples[0]
    assert f"⟦{learnt(sample.pieces)}⟧" in text
    assert "\nnot JSON, such as\n  问答.jsonl row 31: " in text
    (total,) = re.findall(r"^all .*$", text, re.MULTILINE)
    assert seen.figures is not None
    assert total.split()[1:3] == ["190", str(seen.figures.total.samples)]
    assert total.split()[-1] == "4"
    more = seen.sequences[0].left
    assert f"and {more} more in this sequence: --split train --row" in text


def test_the_same_seed_shows_the_same(made: Made):
    def shown(seed: int) -> list[int]:
        return [sequence.row for sequence in look(made.place, wanted(seed=seed)).sequences]

    assert shown(1) == shown(1)
    assert len({tuple(shown(seed)) for seed in range(5)}) > 1
    assert len(shown(1)) == 3


def test_one_sample_by_its_id(made: Made):
    (sequence,) = look(made.place, wanted(sample=3)).sequences
    assert [(sample.id, sample.origin.row) for sample in sequence.samples] == [(3, 4)]
    with pytest.raises(DataError, match=r"问答.jsonl row 11 was set aside: no text"):
        look(made.place, wanted(sample=10))
    with pytest.raises(DataError, match=r"chats.jsonl row 6 was set aside: too long"):
        look(made.place, wanted(sample=(1 << 32) | 5))
    with pytest.raises(DataError, match="is in no sequence"):
        look(made.place, wanted(sample=5000))
    for sample in (-1, 99 << 32):
        with pytest.raises(RecipeError, match="is no sample of this data"):
            look(made.place, wanted(sample=sample))
    with pytest.raises(RecipeError, match=r"the split held_out has sequences 0 to"):
        look(made.place, wanted(row=999, split="held_out"))


def test_rows_that_were_set_aside(made: Made):
    chosen = wanted(rejected=True)
    seen = look(made.place, chosen)
    assert seen.figures is None
    assert seen.sequences == ()
    places = {(row.reason, Path(row.file).name, row.row) for row in seen.rejected}
    assert places == {
        ("no text", "问答.jsonl", 11),
        ("duplicate", "问答.jsonl", 21),
        ("not JSON", "问答.jsonl", 31),
        ("too long", "chats.jsonl", 6),
    }
    text = text_of(seen, chosen, terminal=True)
    assert HOSTILE.replace("\x1b", "\\x1b") in text
    assert "\x1b[2J" not in text
    (one,) = look(made.place, wanted(rejected=True, reason="too long")).rejected
    assert one.reason == "too long"
    with pytest.raises(RecipeError, match="Did you mean 'too long'"):
        look(made.place, wanted(rejected=True, reason="to long"))


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.learnt = ""
        self.cells: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.outside += [named[name] for name in ("src", "href", "srcset", "data") if name in named]
        self._open.append((tag, named.get("class", "")))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tag, kind = self._open[-1] if self._open else ("", "")
        if "learnt" in kind.split():
            self.learnt += data
        if tag == "td":
            self.cells.append(data)


def test_the_page_needs_nothing_else_and_shows_the_same(made: Made):
    seen = look(made.place, PLAIN, everything=True)
    text = page_of(seen)
    page = Page(text)
    assert "script" not in page.tags
    assert page.outside == []
    assert "@import" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert page.learnt == "".join(
        learnt(sample.pieces) for sequence in seen.sequences for sample in sequence.samples
    )
    assert seen.figures is not None
    assert "问答" in page.cells
    assert f"{seen.figures.total.tokens:,}" in page.cells
    bars = [h.counts for h in (seen.figures.per_sample, seen.figures.per_sequence) if h]
    assert page.tags.count("rect") == sum(len(counts) for counts in bars)
    assert "\x1b" not in text
    assert "&lt;script&gt;w1" in text


def test_a_browser_shows_the_page(made: Made, tmp_path: Path):
    """Counts, bars as high as their counts, and what is learnt in another colour than the rest."""
    seen = look(made.place, PLAIN, everything=True)
    figures = seen.figures
    assert figures is not None
    (tmp_path / "page.html").write_text(page_of(seen), encoding="utf-8")
    with opened(tmp_path / "page.html", tmp_path / "profile") as page:
        table = page.value(
            "[...document.querySelectorAll('#sources tr')].map("
            "row => [...row.children].map(cell => cell.innerText))"
        )
        heights = page.value(
            "[...document.querySelectorAll('svg')].map(svg => "
            "[...svg.querySelectorAll('rect')].map(bar => bar.getBoundingClientRect().height))"
        )
        wide = page.value("document.documentElement.scrollWidth > innerWidth")
        colours = {}
        for scheme in ("light", "dark"):
            page.emulate("prefers-color-scheme", scheme)
            colours[scheme] = page.value(
                "['pre .learnt', 'pre span:not([class])', 'body'].map(which => {"
                "const style = getComputedStyle(document.querySelector(which));"
                "return [style.color, style.backgroundColor]})"
            )
        said = page.value(
            "[...document.querySelectorAll('.learnt')].map(e => e.innerText).join('')"
        )
        assert page.complaints == []
    assert [row[0] for row in table] == ["source", "问答", "chats", "all"]
    assert table[-1][1:3] == ["190", f"{figures.total.samples:,}"]
    for found, drawn in zip((figures.per_sample, figures.per_sequence), heights, strict=True):
        assert found is not None
        assert len(drawn) == len(found.counts)
        tallest = max(range(len(drawn)), key=drawn.__getitem__)
        assert found.counts[tallest] == found.highest
        assert (drawn[tallest] > 50, wide) == (True, False)
    for learnt_style, given_style, body_style in colours.values():
        assert learnt_style != given_style
        assert learnt_style[1] not in ("rgba(0, 0, 0, 0)", body_style[1])
    assert colours["light"] != colours["dark"]
    every = [sample for sequence in seen.sequences for sample in sequence.samples]
    assert said.split() == "".join(learnt(sample.pieces) for sample in every).split()


def test_a_key_a_folder_and_a_page(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def told(reference: str, **options: Any) -> str:
        plain = {"cache": made.cache, "html": None, "as_json": False} | options
        inspect(reference, [], PLAIN, **plain)
        return capsys.readouterr().out

    by_key = told(made.prepared.folder.name[:8])
    assert told(str(made.prepared.folder), cache=tmp_path) == by_key
    found = json.loads(told(str(made.prepared.folder), as_json=True))
    assert found["figures"]["recipe"] == "mine"
    assert found["sequences"][0]["samples"][0]["pieces"][0]["special"] is True
    assert told(str(made.prepared.folder), html=tmp_path / "a.html").startswith("Wrote ")
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    with pytest.raises(DataError, match="holds no prepared data"):
        told(str(tmp_path))
    with pytest.raises(RecipeError, match="zzz: there is no such file, nor a shipped recipe"):
        told("zzz")


def test_a_recipe_is_found_once_it_is_prepared(made: Made, tmp_path: Path):
    file = tmp_path / "mine.yaml"
    sources = ", ".join(source.path for source in made.recipe.data.train)
    file.write_text(
        f"base: {{source: {made.base}}}\nstorage: {{cache: {made.cache}}}\ntrain: {{steps: 1}}\n"
        f"data: {{train: [{sources}], held_out_fraction: 0.1, sequence_length: 64, "
        "packing: true}\n"
    )
    (made.base / "config.json").write_text("{}")
    (made.base / "model.safetensors").write_bytes(b"")
    assert find(str(file), [], tmp_path).folder == made.prepared.folder
    with pytest.raises(DataError, match=r"shoal prepare .*mine.yaml data.sequence_length=32"):
        find(str(file), ["data.sequence_length=32"], tmp_path)


def test_looking_imports_neither_torch_nor_ray(made: Made):
    program = (
        f"import sys; sys.argv[1:] = ['inspect', {str(made.prepared.folder)!r}]\n"
        "from launcher.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'ray', 'transformers', 'deepspeed', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def write_tokenizer(folder: Path, kind: str) -> dict[str, int]:
    """Two ways of writing spaces: before a word, lost at the beginning of a text; as a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    if kind == "spaces":
        vocabulary = {word: number for number, word in enumerate(["▁one", "▁two", "<end>", "三"])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
        tokenizer.decoder = decoders.Metaspace()
    else:
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {letter: number for number, letter in enumerate([*letters, "<end>"])}
        tokenizer = Tokenizer(models.BPE(vocabulary, []))
        tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return vocabulary


def test_a_tokenizer_without_a_backend_decodes_by_itself(tmp_path: Path):
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    tokenizer.save_pretrained(tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()
    decoder = Decoder({"folder": str(tmp_path), "source": "b", "new_tokens": []})
    ids = tokenizer("aé")["input_ids"]
    assert decoder.pieces(ids, [False] * len(ids)) == [
        Piece("aé", False, False),
        Piece("</s>", False, True),
    ]


def test_pieces_keep_spaces_and_characters(tmp_path: Path):
    known = write_tokenizer(tmp_path, "spaces")
    decoder = Decoder({"folder": str(tmp_path), "source": "b", "new_tokens": ["<new>"]})
    ids = [known[word] for word in ("▁one", "▁two", "▁one", "三", "<end>", "▁two")]
    pieces = decoder.pieces([*ids, len(known)], [False, True, True, False, True, False, False])
    assert pieces == [
        Piece("one", False, False),
        Piece(" two one", True, False),
        Piece("三", False, False),
        Piece("<end>", True, True),
        Piece(" two<new>", False, False),
    ]
    assert decoder.pieces([], []) == []
    known = write_tokenizer(tmp_path, "bytes")
    decoder = Decoder({"folder": str(tmp_path), "source": "b", "new_tokens": []})
    letters = {chr(ord("a") + n): known[chr(ord("a") + n)] for n in range(26)}
    three = [known[letter] for letter in "ä¸ī"]  # the bytes of 三
    ids = [letters["a"], *three, *three, letters["b"]]
    assert [piece.text for piece in decoder.pieces(ids, [False] * 4 + [True] * 4)] == ["a三", "三b"]
    # What is learnt begins within a character.
    torn = decoder.pieces(ids, [False] * 2 + [True] * 6)
    assert [piece.learnt for piece in torn] == [False, True]
    assert torn[1].text.endswith("三b")


def test_a_base_that_is_gone_is_told(tmp_path: Path):
    with pytest.raises(BaseModelError, match="Name the recipe instead of the key"):
        Decoder({"folder": str(tmp_path / "gone"), "source": "b", "new_tokens": []})


def test_histograms():
    found = histogram(np.array([1, 2, 3, 4, 100, 100]))
    assert found is not None
    assert (found.width, found.counts[0], found.counts[-1]) == (8, 4, 2)
    assert [found.label(0), found.label(12)] == ["1 to 8", "97 to 104"]
    assert len(found.counts) == 13
    alike = histogram(np.array([64] * 5))
    assert alike is not None
    assert [(alike.label(0), alike.counts)] == [("64", (5,))]
    far = histogram(np.array([5000, 5003]))
    assert far is not None
    assert [far.label(0), far.label(3)] == ["5,000", "5,003"]
    assert far.counts == (1, 0, 0, 1)
    assert histogram(np.array([], np.int32)) is None


def test_of_many_samples_some_shards_are_read():
    assert shards_step([10] * 100, most=5000) == 1
    assert shards_step([100] * 100, most=1000) == 10
    assert shards_step([], most=10) == 1


def test_text_that_a_terminal_would_obey():
    assert visible("说 é\n\t🙂 \x1b[31m\x00\ud800") == "说 é\n\t🙂 \\x1b[31m\\x00\\ud800"
    assert visible("a\u202eb") == "a\\u202eb"
    assert visible("क्षि 👨\u200d👩") == "क्षि 👨\u200d👩"
    assert middle_left_out("a" * 50 + "b" * 50, 10) == "aaaaa […90 characters…] bbbbb"
    assert middle_left_out("short", 10) == "short"
