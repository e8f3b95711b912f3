"""Steps of data.clean as a recipe says them: what is refused, and how they come back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from recipes.data import CleaningStep
from recipes.errors import RecipeError
from recipes.load import load


def write(folder: Path, clean: list[Any]) -> Path:
    file = folder / "r.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "base": {"source": "org/model"},
                "data": {"train": ["rows.jsonl"], "clean": clean},
                "train": {"steps": 1},
            },
            allow_unicode=True,
        )
    )
    return file


def steps_of(file: Path) -> list[CleaningStep]:
    return load(str(file)).recipe.data.clean


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ({"characters": {"min": 5, "max": 4}}, ".max = 4: is below min = 5"),
        ({"tokens": {"min": -1}}, ".min = -1: is below 0"),
        ({"symbols": {"max": 1.5}}, ".max = 1.5: is not a share; allowed: 0 ≤ value ≤ 1"),
        ({"digits": {"max": -0.1}}, ".max = -0.1: is not a share"),
        ({"repetition": {"lines": 2}}, ".lines = 2.0: is not a share"),
        ({"repetition": {"top_ngrams": [0.1, 7]}}, ".top_ngrams[1] = 7.0: is not a share"),
        ({"repetition": {"top_ngrams": [0.1] * 4}}, "are more than 3 shares"),
        ({"language": {"keep": ["zh", "cn"]}}, ".keep = 'cn': is no known language"),
        ({"language": {"keep": []}}, ".keep = []: is empty"),
        ({"language": {"min_probability": 3}}, ".min_probability = 3.0: is not a share"),
        ({"stop_words": {}}, ": names no words. Give languages, file, or both"),
        ({"stop_words": {"languages": ["zz"]}}, ".languages = 'zz': has no list"),
        ({"boilerplate_lines": {"max_texts": 0}}, ".max_texts = 0: is too small"),
        ({"collapse_punctuation": {"longest": 0}}, ".longest = 0: is too small"),
        ("replace", ".pattern: must be given"),
        ({"replace": {"pattern": "(a"}}, ".pattern = '(a': is no regular expression: missing )"),
        ({"replace": {"pattern": ""}}, ".pattern = '': is empty"),
        (
            {"replace": {"pattern": "(a)", "replacement": "\\2"}},
            ".replacement = '\\\\2': does not fit the pattern: invalid group reference 2",
        ),
        ({"replace": {"pattern": "a", "replacement": "\\g<n>"}}, "does not fit the pattern"),
        ({"drop_matching": {"pattern": "*"}}, ".pattern = '*': is no regular expression"),
        ({"segment": {"separator": ""}}, ".separator = '': separates nothing"),
        ({"segment": {"mode": "best"}}, ".mode = 'best': has a wrong type; allowed: one of exact"),
        ({"call": {"function": "mine.py"}}, ".function = 'mine.py': names no function"),
        (
            {"call": {"function": "mine:f", "options": {"text": 1}}},
            ".options.text: is what the function is given anyway",
        ),
        ({"strip_html": {"keep": "b"}}, ".keep: is no key. Known: none"),
        ({"strip_urls": {"replace": "x"}}, ".replace: is no key. Did you mean 'replacement'?"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, step: Any, problem: str):
    with pytest.raises(RecipeError) as caught:
        load(str(write(tmp_path, ["strip_control", step])))
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith("  data.clean[1]")
    assert problem in line


def test_boilerplate_is_looked_for_once(tmp_path: Path):
    with pytest.raises(
        RecipeError, match=r"clean\[2\] = 'boilerplate_lines': is there already, as"
    ):
        load(str(write(tmp_path, ["boilerplate_lines", "segment", "boilerplate_lines"])))


def test_the_guide_shows_steps_that_there_are(tmp_path: Path):
    guide = Path(__file__).parents[2] / "docs" / "data.md"
    blocks = re.findall(r"```yaml\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    shown = [tree["clean"] for tree in map(yaml.safe_load, blocks) if "clean" in tree]
    assert len(shown) >= 4
    for clean in shown:
        assert len(steps_of(write(tmp_path, clean))) == len(clean)


def test_steps_come_back_as_they_were_written(tmp_path: Path):
    written: list[Any] = [
        "normalize_unicode",
        {"repetition": {"top_ngrams": [0.3]}},
        {"language": {"keep": ["zh"]}},
        {"call": {"function": "html:unescape", "options": {"a": [1, {"b": None}]}}},
    ]
    assert [step.plain() for step in steps_of(write(tmp_path, written))] == written
    defaults = [{"language": {"keep": ["zh", "en"]}}, {"repetition": {"min_words": 50}}]
    assert [step.plain() for step in steps_of(write(tmp_path, defaults))] == [
        "language",
        "repetition",
    ]


@pytest.mark.parametrize(
    ("written", "resolved"),
    [
        ("mine.py:f", "{folder}/mine.py:f"),
        ("sub/other.py:f", "{folder}/sub/other.py:f"),
        ("/opt/steps.py:f", "/opt/steps.py:f"),
        ("mine:f", "{folder}/mine.py:f"),
        ("sub.other:f", "{folder}/sub/other.py:f"),
        ("package.module:f", "package.module:f"),
    ],
)
def test_a_function_in_the_recipes_folder_has_an_absolute_path(
    tmp_path: Path, written: str, resolved: str
):
    (tmp_path / "sub").mkdir()
    (tmp_path / "mine.py").touch()
    (tmp_path / "sub" / "other.py").touch()
    (step,) = steps_of(write(tmp_path, [{"call": {"function": written}}]))
    assert step.plain() == {"call": {"function": resolved.format(folder=tmp_path)}}


def test_files_of_steps_have_absolute_paths(tmp_path: Path):
    clean = [{"segment": {"dictionary": "words.txt"}}, {"stop_words": {"file": "stop.txt"}}]
    assert [step.plain() for step in steps_of(write(tmp_path, clean))] == [
        {"segment": {"dictionary": str(tmp_path / "words.txt")}},
        {"stop_words": {"file": str(tmp_path / "stop.txt")}},
    ]
