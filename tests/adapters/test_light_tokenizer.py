"""A tokenizer that was left by one process for others: it says what transformers' own does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from adapters.light_tokenizer import LightTokenizer, leave_tokenizer, left_tokenizer
from adapters.tokenizer import load_tokenizer
from launcher.prepare.rendering import render_chat
from launcher.prepare.rendering.written import Chat
from launcher.prepare.unusable import Unusable
from recipes.errors import BaseModelError
from support import tiny
from support.chat_styles import style
from trainer.shards import IGNORED

ROOT = Path(__file__).parent.parent.parent
STYLES = ("chatml", "qwen2_5", "qwen3", "llama3", "gemma", "mistral", "marked")
TEXTS = (
    "",
    " ",
    "Hello there,  how are you?\n\nÉté 你好，今天天气很好。 👩‍👩‍👧 \t",
    "<|im_start|>user <|end|> [INST] <think> <bos></s>",
    'w1 w2 w3 of 3.14 {"name": "weather"}',
)
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"city": "string"}}}]
CALL = {"type": "function", "id": "abcdefghi", "function": {"name": "weather", "arguments": {}}}
CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": "What is the weather?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny", "tool_call_id": "abcdefghi"},
    {"role": "assistant", "content": "Sunny, 你好."},
    {"role": "user", "content": "And in Rome?"},
    {"role": "assistant", "content": "Weak wind.", "name": None},
]
MARKED = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of a style's name, the tokenizer by transformers and as it was left."""

    @cache
    def made(name: str) -> tuple[Any, LightTokenizer]:
        folder = tmp_path_factory.mktemp(name)
        tokenizer = tiny.make_pair_tokenizer() if name == "pairs" else style(name)
        tokenizer.save_pretrained(folder / "base")
        leave_tokenizer(folder, folder / "base")
        return load_tokenizer(folder / "base"), left_tokenizer(folder)

    return made


@pytest.mark.parametrize("name", [*STYLES, "pairs"])
def test_texts_are_the_same_tokens(both: Any, name: str):
    whole, light = both(name)
    for special in (True, False):
        found = [whole(text, add_special_tokens=special)["input_ids"] for text in TEXTS]
        assert light.backend.ids_of(TEXTS, special=special) == found
        for text in TEXTS:
            expected = whole(text, add_special_tokens=special, return_offsets_mapping=True)
            encoding = light.backend.encode(text, special=special)
            assert encoding.ids == expected["input_ids"]
            assert encoding.offsets == expected["offset_mapping"]
    for mine, theirs in (
        (light.bos_token_id, whole.bos_token_id),
        (light.eos_token_id, whole.eos_token_id),
        (light.chat_template, whole.chat_template),
    ):
        assert mine == theirs


@pytest.mark.parametrize("name", ["pairs", "chatml"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pairs_are_cut_alike(both: Any, name: str, side: Any):
    whole, light = both(name)
    whole.truncation_side = side
    first, second = "w1 w2 w3 w4 w5 w6 w7", "w8 w9 w10"
    for pair in ((first, second), (second, first), (first, None), (first, ""), ("", "")):
        for length in (None, 3, 4, 5, 8, 100):
            cut = {} if length is None else {"truncation": True, "max_length": length}
            expected = whole(*pair, **cut)
            ids, types = light.backend.pair(*pair, length, side)
            assert ids == expected["input_ids"]
            assert types == expected.get("token_type_ids", [])
    assert light.backend.ids_of([first], special=True) == [whole(first)["input_ids"]]


def told(write: Callable[[], str]) -> str:
    """The text of a chat, or why a template takes no such chat."""
    try:
        return write()
    except Unusable as error:
        return error.detail
    except Exception as error:  # whatever a template of transformers raises
        return str(error).splitlines()[0]


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("prompt", [True, False])
def test_chats_are_written_alike(both: Any, name: str, prompt: bool):
    whole, light = both(name)
    for messages, tools in ((CHAT[:1], None), (CHAT[-2:], None), (CHAT, TOOLS), (CHAT[:4], TOOLS)):
        chat = Chat(tokenizer=light, messages=messages, tools=tools)
        options = {"tools": tools, "tokenize": False, "add_generation_prompt": prompt}
        expected = told(partial(whole.apply_chat_template, messages, **options))
        assert told(partial(chat.write, prompt=prompt)) == expected


def test_what_a_template_marks_is_found_alike(tmp_path: Path):
    style("llama3").save_pretrained(tmp_path / "base")
    leave_tokenizer(tmp_path, tmp_path / "base", ["<new>"], MARKED)
    whole = load_tokenizer(tmp_path / "base", ["<new>"], MARKED)
    messages = [{"role": m["role"], "content": m["content"] + "<new>"} for m in CHAT]
    expected = whole.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = expected["input_ids"], expected["assistant_masks"]
    assert 0 < sum(mask) < len(mask)
    rendered = render_chat(left_tokenizer(tmp_path), messages)
    assert rendered.input_ids == ids
    labels = [token if said else IGNORED for token, said in zip(ids, mask, strict=True)]
    assert rendered.labels == labels


def test_of_several_templates_the_one_for_tools_is_taken_where_there_are_some():
    several = style("chatml")
    several.chat_template = {"default": "plain", "tool_use": "tools"}
    light = LightTokenizer.of(several)
    for tools in (None, [], TOOLS):
        assert light.template(tools) == several.get_chat_template(tools=tools)
    several.chat_template = {"rag": "other"}
    with pytest.raises(ValueError, match=r"no default chat template, only \['rag'\]"):
        LightTokenizer.of(several).template()
    several.chat_template = None
    with pytest.raises(Unusable, match="has no chat template"):
        Chat(tokenizer=LightTokenizer.of(several), messages=CHAT).write()


def test_a_class_without_a_backend_is_loaded_as_it_is(tmp_path: Path):
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(tmp_path / "base")
    leave_tokenizer(tmp_path, tmp_path / "base")
    whole, light = load_tokenizer(tmp_path / "base"), left_tokenizer(tmp_path)
    assert not whole.is_fast
    assert light.backend.ids_of(["aé"], special=True) == [whole("aé")["input_ids"]]
    ids, _ = light.backend.pair("abc", "de", 5, "left")
    whole.truncation_side = "left"
    assert ids == whole("abc", "de", truncation=True, max_length=5)["input_ids"]
    with pytest.raises(BaseModelError, match="ByT5Tokenizer does not tell where in a text"):
        light.backend.encode("a", special=True)
    with pytest.raises(BaseModelError, match="ByT5Tokenizer does not tell where in a text"):
        leave_tokenizer(tmp_path, tmp_path / "base", with_offsets=True)
    with pytest.raises(BaseModelError, match="holds no tokenizer that can be read"):
        leave_tokenizer(tmp_path, tmp_path / "nothing")


def test_what_is_left_is_the_same_each_time(llama: Path, tmp_path: Path):
    """Preparing that goes on where it was leaves it again, while tasks may be reading it."""
    files: list[dict[str, bytes]] = []
    for folder in (tmp_path, tmp_path, tmp_path / "b"):
        leave_tokenizer(folder, llama, ["x", "<y>"], "{{ messages }}")
        files.append({file.name: file.read_bytes() for file in folder.glob("*.json")})
    assert files[0] == files[1] == files[2]
    assert len(files[0]) == 2


def test_rendering_imports_no_torch(llama: Path, tmp_path: Path):
    leave_tokenizer(tmp_path, llama)
    program = f"""
import json, sys
from pathlib import Path
from adapters.light_tokenizer import left_tokenizer
from launcher.prepare.stages import cleaned, packed, tokenized
from launcher.prepare.rendering import render_chat, render_classified
from launcher.prepare.rendering.texts import render_text
tokenizer = left_tokenizer(Path({str(tmp_path)!r}))
found = [render_text(tokenizer, "w1 w2"), render_classified(tokenizer, "w1", "w2", 8, "truncate")]
assert "transformers" not in sys.modules
found.append(render_chat(tokenizer, json.loads({json.dumps(json.dumps(CHAT[-2:]))})))
assert "torch" not in sys.modules
print(json.dumps([rendered.input_ids for rendered in found]))
"""
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    whole = load_tokenizer(llama)
    assert json.loads(found.stdout) == [
        [*whole("w1 w2")["input_ids"], whole.eos_token_id],
        whole("w1", "w2")["input_ids"],
        whole.apply_chat_template(CHAT[-2:], return_dict=True)["input_ids"],
    ]
