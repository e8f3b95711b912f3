"""Packing and selection: functions from value to value."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

from adapters.tokenizer import chat_templates, names_end
from launcher.prepare.stages.packing import pack
from launcher.prepare.stages.selection import select


def test_packing_holds_each_sample_once_and_never_overflows():
    chance = random.Random(0)
    for length in (10, 64, 100):
        lengths = [chance.randint(1, length) for _ in range(200)]
        packs = pack(lengths, length)
        assert sorted(index for members in packs for index in members) == list(range(200))
        assert all(sum(lengths[i] for i in members) <= length for members in packs)
        assert len(packs) <= 1.22 * sum(lengths) / length + 1
        assert packs == pack(lengths, length)


def test_packing_is_best_fit():
    assert pack([5, 5, 6, 4], 10) == [[0, 1], [2, 3]]
    assert pack([], 10) == []
    assert pack([10, 10], 10) == [[0], [1]]


def digests(text: str) -> Any:
    return np.array([letter.encode().ljust(16, b"x") for letter in text], dtype="S16").view("V16")


def verdicts(samples: str, questions: str, held_out: str = "", **options: Any) -> list[str]:
    marks = np.array([mark == "h" for mark in (held_out or "." * len(samples))])
    chosen: dict[str, Any] = {
        "held_out_fraction": 0.0,
        "deduplicate": True,
        "labels_must_agree": False,
    }
    found = select(digests(samples), digests(questions), marks, **(chosen | options))
    return [found.verdict(index) for index in range(len(samples))]


def test_the_first_of_equal_samples_stays():
    assert verdicts("abab", "abab") == ["", "", "duplicate", "duplicate"]
    assert verdicts("abab", "abab", deduplicate=False) == [""] * 4


def test_what_is_held_out_is_not_trained_on():
    assert verdicts("abcb", "abcb", "...h") == ["", "also held out", "", "held out"]
    # Another answer to a held-out question is a leak too.
    assert verdicts("abcB", "abcb", "...h")[1] == "also held out"


def test_contradicting_labels_go_all():
    assert verdicts("aAb", "aab", labels_must_agree=True) == ["contradicting labels"] * 2 + [""]
    assert verdicts("aAb", "aab") == ["", "", ""]
    assert verdicts("aab", "aab", labels_must_agree=True) == ["", "duplicate", ""]


def test_a_share_is_held_out_by_the_question_alone():
    chance = np.random.default_rng(0)
    many = np.frombuffer(chance.bytes(16 * 4000), dtype="V16")
    none = np.zeros(4000, np.bool_)
    options: dict[str, Any] = {"deduplicate": True, "labels_must_agree": False}
    found = select(many, many, none, held_out_fraction=0.1, **options).codes
    assert 300 < (found == 1).sum() < 500
    turned = select(many[::-1], many[::-1], none, held_out_fraction=0.1, **options).codes
    assert (turned[::-1] == found).all()
    assert len(select(many[:0], many[:0], none[:0], held_out_fraction=0.1, **options).codes) == 0


def test_the_chat_templates_of_a_folder_wherever_they_are(llama: Path, tmp_path: Path):
    assert len(chat_templates(llama)) == 1
    config = tmp_path / "tokenizer_config.json"
    config.write_text("{}")
    assert chat_templates(tmp_path) == []
    config.write_text('{"chat_template": "a"}')
    assert chat_templates(tmp_path) == ["a"]
    config.write_text('{"chat_template": [{"name": "default", "template": "a"}, 7]}')
    (tmp_path / "chat_template.json").write_text('{"chat_template": "b"}')
    (tmp_path / "chat_template.jinja").write_text("c")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("d")
    assert chat_templates(tmp_path) == ["a", "b", "c", "d"]


def test_whether_a_base_names_an_end_token(llama: Path, tmp_path: Path):
    assert names_end(llama)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": null}')
    assert not names_end(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "</s>"}}')
    assert names_end(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text("[torn")
    (tmp_path / "config.json").write_text('{"eos_token_id": 0}')
    assert names_end(tmp_path)
