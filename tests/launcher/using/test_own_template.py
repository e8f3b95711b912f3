"""A recipe's own chat template, from the file to whoever asks the adapter later."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from adapters.checkpoint_folder import Position, read_origin, write_manifest
from adapters.tokenizer import load_tokenizer, read_template
from launcher.prepare.key import prepared_key
from launcher.prepare.rendering.written import check_template
from launcher.using.chosen import choose, opening_of
from recipes.errors import DataError
from support import jobs
from support.used import make_run

OWN = "{% for m in messages %}{{ m.content }} <|end|> {% endfor %}"


def test_it_takes_the_place_of_the_tokenizer_s(llama: Path):
    tokenizer = load_tokenizer(llama, chat_template=OWN)
    chat = [{"role": "user", "content": "w1"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "w1 <|end|> "


def test_a_file_that_holds_none_is_told(tmp_path: Path):
    with pytest.raises(DataError, match=r"data.chat_template = .*own.jinja: cannot be read"):
        read_template(str(tmp_path / "own.jinja"))
    file = tmp_path / "own.jinja"
    file.write_text("{% for m in messages %}\n{{ m.content }\n{% endfor %}")
    with pytest.raises(DataError, match=r"own.jinja, line 2: "):
        check_template(str(file))
    marked = "{%- generation -%}{{ 1 }}{% endgeneration %}{% continue %}{% endfor %}"
    file.write_text(f"{{% for m in messages %}}{marked}")
    check_template(str(file))


def test_its_bytes_decide_the_key(llama: Path, tmp_path: Path):
    def key(file: Path | None) -> str:
        plain = jobs.recipe()
        data = dataclasses.replace(plain.data, chat_template=str(file) if file else None)
        return prepared_key(dataclasses.replace(plain, data=data), llama, [])

    first, moved, other = (tmp_path / name for name in ("a.jinja", "b.jinja", "c.jinja"))
    first.write_text(OWN)
    moved.write_text(OWN)
    other.write_text(f"{OWN} ")
    assert key(first) == key(moved)
    assert len({key(None), key(first), key(other)}) == 3


def test_an_adapter_is_asked_as_it_was_trained(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run_dir = make_run(tmp_path / "runs", "mine", llama)
    monkeypatch.chdir(tmp_path)
    [chosen] = choose(["mine"], [], print)
    assert opening_of(chosen.recipe, [chosen]).chat_template is None
    file = tmp_path / "own.jinja"
    file.write_text("of the recipe")
    [chosen] = choose(["mine"], [f"data.chat_template={file}"], print)
    assert opening_of(chosen.recipe, [chosen]).chat_template == "of the recipe"
    [adapter] = run_dir.rglob("adapter")
    (adapter / "chat_template.jinja").write_text(OWN)
    origin = read_origin(adapter.parent)
    write_manifest(adapter.parent, origin, Position(step=7))
    file.unlink()
    assert opening_of(chosen.recipe, [chosen]).chat_template == OWN
