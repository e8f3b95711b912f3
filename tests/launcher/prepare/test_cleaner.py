"""The steps together: their order, what is counted, what is asked, and the user's own step."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.light_tokenizer import leave_tokenizer
from launcher.prepare.cleaning import (
    Cleaner,
    Rewriter,
    clean,
    cleaner_of,
    step_content,
    step_files,
    step_versions,
)
from launcher.prepare.unusable import Dropped, Unusable
from recipes.data import steps
from recipes.errors import DataError
from recipes.files import sha256
from support.tiny import make_tokenizer

OWN = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Limits:
    most: int

def without_prefix(text, *, prefix="", most=100):
    if not text.strip():
        return None
    if len(text) > Limits(most).most:
        raise ValueError(f"{len(text)} characters")
    return text.removeprefix(prefix)

def number(text):
    return len(text)
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    file = tmp_path / "my steps.py"
    file.write_text(OWN)
    return str(file)


def test_order_matters_and_each_step_counts_what_it_changed():
    recipe = [
        steps.NormalizeUnicode(),
        steps.StripHtml(),
        steps.Replace(pattern="a", replacement="b"),
        steps.Replace(pattern="b", replacement="c"),
        steps.Characters(min=2),
    ]
    cleaner = Cleaner(recipe)
    assert cleaner.clean(["＜p＞aa", "bb", "xx"]) == ["cc", "cc", "xx"]
    with pytest.raises(Dropped) as dropped:
        cleaner.clean(["ａ"])
    assert (dropped.value.reason, dropped.value.detail) == ("characters: too few", "1")
    assert cleaner.take_counts() == {
        "normalize_unicode": 2,
        "strip_html": 1,
        "replace": 2,
        "replace 2": 3,
    }
    assert cleaner.take_counts() == {}
    # What drops a row looks at all of its texts together.
    assert cleaner.clean(["x", ""]) == ["x", ""]
    assert clean("＜p＞aa", [recipe[1], recipe[0]]) == "<p>aa"
    assert clean("x", []) == "x"


def test_questions_are_rewritten_and_never_dropped(own: str):
    call = steps.Call(function=f"{own}:without_prefix", options={"prefix": "q", "most": 9})
    recipe = [steps.Characters(min=5), call, steps.StripHtml(), steps.Language()]
    asked = Rewriter(Cleaner(recipe))
    assert asked.clean(["q<b>?", "", " "]) == ["?", "", " "]
    with pytest.raises(Unusable, match="failed"):
        asked.clean(["q" * 10])


def test_a_cleaner_is_built_once_for_equal_steps():
    first = cleaner_of([steps.Language(keep=["zh"])])
    assert cleaner_of([steps.Language(keep=["zh"])]) is first
    assert cleaner_of([steps.Language(keep=["en"])]) is not first


def test_tokens_are_those_of_the_base(tmp_path: Path):
    make_tokenizer(tmp_path / "base")
    leave_tokenizer(tmp_path, tmp_path / "base")
    step = steps.Tokens(min=2, max=4)
    with pytest.raises(ValueError, match="tokens was not given what it needs"):
        Cleaner([step])
    cleaner = Cleaner([step], tokenizer_folder=tmp_path)
    counts = {}
    for text in ("", "a", "a b c", "a b c d e f g h i j"):
        try:
            (counts[text],) = cleaner.clean([text])
        except Dropped as dropped:
            counts[text] = dropped.reason
    assert counts[""] == counts["a"] == "tokens: too few"
    assert counts["a b c"] == "a b c"
    assert counts["a b c d e f g h i j"] == "tokens: too many"
    with pytest.raises(Unusable, match="tokens: no text"):
        cleaner.clean(["\ud800"])


def test_the_users_own_step(own: str):
    step = steps.Call(function=f"{own}:without_prefix", options={"prefix": "广告："})
    assert clean("广告：好", [step]) == "好"
    with pytest.raises(Dropped, match=r"^call my steps\.py:without_prefix: dropped$"):
        clean(" ", [step])
    with pytest.raises(Unusable, match=r"^call .*: failed: ValueError: 101 characters$") as failed:
        clean("x" * 101, [step])
    assert not isinstance(failed.value, Dropped)
    with pytest.raises(Unusable, match=r"^call sys:exit: failed: SystemExit: x$"):
        clean("x", [steps.Call(function="sys:exit")])
    with pytest.raises(Unusable, match=r"number: returned no text: int$"):
        clean("x", [steps.Call(function=f"{own}:number")])
    assert clean("&lt;", [steps.Call(function="html:unescape")]) == "<"


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("{own}:nobody", {}, "has no function nobody. Its functions: without_prefix, number"),
        ("{own}:without_prefix", {"prefx": ""}, "is called with a text and the options prefx, but"),
        ("{folder}/none.py:f", {}, "none.py is not there. It must lie where all nodes see it"),
        ("{folder}/broken.py:f", {}, "broken.py cannot be imported: NameError: name 'x' is not"),
        ("{folder}/exits.py:f", {}, "exits.py cannot be imported: SystemExit: 3"),
        ("no_such_module:f", {}, "no_such_module cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_step_that_cannot_be_called_is_found_before_the_first_row(
    own: str, function: str, options: dict[str, str], message: str
):
    folder = Path(own).parent
    (folder / "broken.py").write_text("x")
    (folder / "exits.py").write_text("raise SystemExit(3)")
    step = steps.Call(function=function.format(own=own, folder=folder), options=options)
    with pytest.raises(DataError, match=message.replace(".", r"\.")):
        Cleaner([step])


def test_what_the_key_knows_of_steps(own: str, tmp_path: Path):
    dictionary = tmp_path / "words.txt"
    dictionary.write_text("网易杭研大厦\n", encoding="utf-8")
    recipe = [
        steps.Segment(dictionary=str(dictionary)),
        steps.StopWords(languages=["zh"]),
        steps.Call(function=f"{own}:number"),
        steps.Language(),
    ]
    assert step_files(recipe) == [dictionary, Path(own)]
    assert list(step_versions(recipe)) == ["unicode", "jieba", "py3langid", "stopwordsiso"]
    assert step_versions([]) == {}

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = [
        steps.Segment(dictionary=shutil.copy(dictionary, elsewhere)),
        recipe[1],
        steps.Call(function=f"{shutil.copy(own, elsewhere)}:number"),
        recipe[3],
    ]
    assert step_content(moved, sha256) == step_content(recipe, sha256)
    dictionary.write_text("网易\n", encoding="utf-8")
    assert step_content(moved, sha256) != step_content(recipe, sha256)
    dictionary.unlink()
    with pytest.raises(DataError, match=r"data\.clean\[0\]\.dictionary: .*words\.txt is not there"):
        step_files(recipe)


def test_a_process_of_its_own_cleans_the_same():
    """Nothing depends on hash seeds, or on what the process has done before."""
    text = "小明硕士毕业于中国科学院计算所，the best of his class，后在日本京都大学深造"
    recipe = "[steps.StopWords(languages=['zh', 'en']), steps.Segment(mode='search')]"
    program = (
        "from launcher.prepare.cleaning import clean; from recipes.data import steps; "
        f"print(ascii(clean({text!r}, {recipe})))"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    here = clean(text, [steps.StopWords(languages=["zh", "en"]), steps.Segment(mode="search")])
    assert elsewhere.stdout.strip() == ascii(here)
