"""What is learnt from a chat, for templates of every family: against prefixes where chats are
prefixes of longer ones, and against what is written here by hand where they are not."""

from __future__ import annotations

import random
from functools import cache
from itertools import groupby
from typing import Any

import pytest

from adapters.light_tokenizer import LightTokenizer
from launcher.prepare.rendering import render_chat, token_ids
from launcher.prepare.unusable import Unusable
from support.chat_styles import by_prefixes, style
from trainer.shards import IGNORED

light = LightTokenizer.of
STYLES = ("chatml", "qwen2_5", "qwen3", "llama3", "gemma", "mistral", "marked")
END = {
    "chatml": "<|im_end|>",
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "mistral": "</s>",
    "marked": "<|end|>",
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"city": "string"}}}]


@cache
def tokenizer_of(name: str) -> Any:
    return style(name)


def chat(*turns: str, system: str | None = None) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    first = [{"role": "system", "content": system}] if system is not None else []
    return [*first, *({"role": roles[n % 2], "content": text} for n, text in enumerate(turns))]


def call(city: str, content: str = "") -> dict[str, Any]:
    function = {"name": "weather", "arguments": {"city": city}}
    calls = [{"type": "function", "id": "abcdefghi", "function": function}]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def result(text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": "abcdefghi"}


def asked(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answered(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def learnt(name: str, messages: list[dict[str, Any]], tools: Any = None) -> list[str]:
    """The runs of tokens that something is learnt from, as text."""
    tokenizer = tokenizer_of(name)
    rendered = render_chat(light(tokenizer), messages, tools=tools)
    given = [{k: v for k, v in message.items() if k != "train"} for message in messages]
    plain = tokenizer.apply_chat_template(given, tools=tools, return_dict=True)["input_ids"]
    assert rendered.input_ids[: len(plain)] == plain
    assert rendered.labels[0] == IGNORED
    for token, label in zip(rendered.input_ids, rendered.labels, strict=True):
        assert label in (token, IGNORED)
    runs = groupby(rendered.labels, key=lambda label: label != IGNORED)
    return [tokenizer.decode(list(run)) for said, run in runs if said]


CHATS = {
    "one turn": chat("What is the capital of France?", "Paris."),
    "three turns": chat("Hello", "How can I help?", "two and two?", "four", "你好", "今天很好。"),
    "white space": chat("a\n", "I think\n\nthat it is four", "\tb ", "x  y\nz"),
    "the same words": chat("Paris", "Paris", "Paris Paris", "Paris"),
    "roles as words": chat("assistant", "user\nassistant\n", "system", "model"),
    "not words": chat("a{}[]", '{"a": "b"} 😀é', "<b>", "</b> \\n [x]"),
}  # fmt: skip


# Qwen 3's template writes the last turn in another way than those before, see below.
PREFIXES = [
    (name, kind)
    for name in STYLES
    for kind, messages in CHATS.items()
    if name != "qwen3" or len(messages) == 2
]


@pytest.mark.parametrize(("name", "kind"), PREFIXES)
def test_what_is_learnt_is_what_a_prefix_lacks(name: str, kind: str):
    rendered = render_chat(light(tokenizer_of(name)), CHATS[kind])
    assert rendered.labels == by_prefixes(tokenizer_of(name), CHATS[kind])


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("kind", CHATS)
def test_what_is_learnt_is_what_the_assistant_says(name: str, kind: str):
    messages = CHATS[kind]
    says = [message["content"] for message in messages if message["role"] == "assistant"]
    if name in ("gemma", "llama3", "mistral"):
        says = [said.strip() for said in says]
    if name == "mistral":
        says = [f" {said}" for said in says]
    if name == "qwen3":
        says[-1] = f"<think>\n\n</think>\n\n{says[-1]}"
    assert learnt(name, messages) == [f"{said}{END[name]}" for said in says]


@pytest.mark.parametrize("name", [name for name in STYLES if name != "gemma"])
def test_system_messages_change_nothing_of_it(name: str):
    plain, system = CHATS["three turns"], chat("", system="Be brief.")[:1]
    assert learnt(name, [*system, *plain]) == learnt(name, plain)


@pytest.mark.parametrize("name", STYLES)
def test_turns_can_be_taken_out(name: str):
    messages = [dict(message) for message in CHATS["three turns"]]
    whole = learnt(name, messages)
    for out in ([1], [3], [5], [1, 5], [1, 3, 5]):
        flagged = [{**m, "train": False} if n in out else m for n, m in enumerate(messages)]
        kept = [run for number, run in zip((1, 3, 5), whole, strict=True) if number not in out]
        assert learnt(name, flagged) == kept


@pytest.mark.parametrize("name", [name for name in STYLES if name not in ("gemma", "mistral")])
def test_odd_orders(name: str):
    """The assistant speaks first, or twice; a system message comes in the middle; a turn is empty;
    what is said begins or ends in white space."""
    system = {"role": "system", "content": "Be brief."}
    messages = [answered("Hello"), asked("a"), answered("b"), answered("c"), system, asked("d")]
    messages = [*messages, answered(""), asked("e"), answered("f")]
    runs = learnt(name, messages)
    said = ["Hello", "b", "c", "", "f"]
    if name == "qwen3":
        said[-1] = "<think>\n\n</think>\n\nf"
    assert runs == [f"{text}{END[name]}" for text in said]
    spaced = chat("a", " b\n", "c", "\n\n d ")
    runs = learnt(name, spaced)
    assert runs[0].removesuffix(END[name]).split() == ["b"]
    assert all(run.endswith(END[name]) for run in runs)


def test_calls_of_tools():
    messages = [
        asked("What is the weather in Paris?"),
        call("Paris"),
        result("sunny"),
        answered("It is sunny."),
        asked("and in Rome?"),
        call("Rome"),
        result("weak wind"),
        answered("The wind is weak."),
    ]

    def written(city: str, name: str = "arguments") -> str:
        return f'{{"name": "weather", "{name}": {{"city": "{city}"}}'

    # The template writes no line end before a call where it answers, and Qwen 2.5's prompt has it.
    qwen = [
        f"\n<tool_call>\n{written(city)}}}\n</tool_call><|im_end|>" for city in ("Paris", "Rome")
    ]
    assert [run.strip() for run in learnt("qwen2_5", messages, TOOLS)] == [
        qwen[0].strip(),
        "It is sunny.<|im_end|>",
        qwen[1].strip(),
        "The wind is weak.<|im_end|>",
    ]
    assert learnt("qwen2_5", messages, TOOLS)[0].startswith("<tool_call>")
    assert learnt("llama3", messages, TOOLS) == [
        f"<|python_tag|>{written('Paris', 'parameters')}}}<|eom_id|>",
        "It is sunny.<|eot_id|>",
        f"<|python_tag|>{written('Rome', 'parameters')}}}<|eom_id|>",
        "The wind is weak.<|eot_id|>",
    ]
    assert learnt("mistral", messages, TOOLS) == [
        f'[TOOL_CALLS] [{written("Paris")}, "id": "abcdefghi"}}]</s>',
        " It is sunny.</s>",
        f'[TOOL_CALLS] [{written("Rome")}, "id": "abcdefghi"}}]</s>',
        " The wind is weak.</s>",
    ]
    assert learnt("qwen3", messages, TOOLS)[-1] == (
        "<think>\n\n</think>\n\nThe wind is weak.<|im_end|>"
    )
    # A chat that ends with a call, and one with words before the call.
    assert learnt("mistral", messages[:2], TOOLS) == learnt("mistral", messages, TOOLS)[:1]
    assert learnt("llama3", messages[:2]) == learnt("llama3", messages)[:1]
    later = [asked("a"), answered("b"), *messages[:2]]
    assert learnt("llama3", later)[0] == "b<|eot_id|>"
    assert learnt("mistral", later)[0] == " b</s>"
    said = learnt("qwen2_5", [asked("a"), call("Rome", "I will look."), result("b"), answered("c")])
    assert said == [f"I will look.{qwen[1]}", "c<|im_end|>"]


def test_a_template_that_knows_no_calls_is_refused():
    """It would teach to say nothing where a tool has to be called."""
    messages = [asked("a"), call("Rome"), result("sunny"), answered("b")]
    for name in ("chatml", "marked"):
        for part in (messages, messages[:2], [asked("a"), call("Rome", "I will look.")]):
            with pytest.raises(Unusable, match="leaves out what is called: message 1"):
                render_chat(light(tokenizer_of(name)), part, tools=TOOLS)
        assert learnt(name, [asked("a"), answered("b")], TOOLS) == [f"b{END[name]}"]


def test_thinking_is_learnt_where_the_template_keeps_it():
    thought = answered("four", reasoning_content="two and two")
    spelled = answered("<think>\ntwo and two\n</think>\n\nfour")
    kept = "<think>\ntwo and two\n</think>\n\nfour<|im_end|>"
    for message in (thought, spelled):
        assert learnt("qwen3", [asked("2 + 2?"), message]) == [kept]
        # Of an earlier turn the template keeps the answer alone.
        runs = learnt("qwen3", [asked("2 + 2?"), message, asked("3?"), thought])
        assert runs == ["four<|im_end|>", kept]
    # Where the prompt for an answer opens the thought, it is not learnt to open it.
    opened = style("qwen3")
    header = "{%- if add_generation_prompt %}\n{{- '<|im_start|>assistant\\n"
    assert header in opened.chat_template
    opened.chat_template = opened.chat_template.replace(header, f"{header}<think>\\n")
    rendered = render_chat(light(opened), [asked("2 + 2?"), thought])
    said = [label for label in rendered.labels if label != IGNORED]
    assert opened.decode(said) == "two and two\n</think>\n\nfour<|im_end|>"


def test_an_empty_answer_right_behind_a_special_token_is_its_end():
    tight = style("marked")
    tight.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    rendered = render_chat(light(tight), chat("a", "", "b", "c"))
    said = [label for label in rendered.labels if label != IGNORED]
    assert tight.decode(said) == "<|end|>c<|end|>"


def test_words_before_the_end_token_are_learnt_with_it():
    worded = style("marked")
    worded.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }} (over) <|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    rendered = render_chat(light(worded), chat("a", "b", "c", "d"))
    said = [label for label in rendered.labels if label != IGNORED]
    assert worded.decode(said) == "b (over) <|end|>d (over) <|end|>"
    assert len(rendered.input_ids) == len(token_ids(light(worded), chat("a", "b", "c", "d")))


def test_a_turn_that_ends_in_no_special_token_is_ended():
    """Without one a model would not learn to stop; what opens the next turn does not end one."""
    messages = chat("a", "b", "c", "d")
    assert learnt("next_role", messages) == ["b", "d<|endoftext|>"]
    words = learnt("words", messages)
    assert words[-1] == "d\n</s>"
    assert words[0].strip() == "b"


def test_the_day_on_which_it_is_prepared_is_not_in_it():
    dated = style("chatml")
    day = "{% set day = strftime_now('%d %b %Y') if strftime_now is defined else 'never' %}"
    dated.chat_template = f"{day}{{{{- day + ' ' }}}}{dated.chat_template}"
    rendered = render_chat(light(dated), chat("a", "b"))
    assert dated.decode(rendered.input_ids).startswith("26 Jul 2024 <|im_start|>system")
    assert rendered.supervised == 2


@pytest.mark.parametrize(
    ("name", "messages", "said"),
    [
        ("gemma", chat("a", "b", system="c"), "There is no system role"),
        ("gemma", [asked("a"), asked("b"), answered("c")], "Roles must alternate"),
        ("mistral", [asked("a"), answered("b"), answered("c")], "roles must alternate"),
        (
            "llama3",
            [asked("a"), {**call("b"), "tool_calls": call("b")["tool_calls"] * 2}],
            "one tool at a time",
        ),
    ],
)
def test_a_template_that_takes_no_such_chat(name: str, messages: list[Any], said: str):
    with pytest.raises(Unusable, match=f"chat template refuses: .*{said}"):
        render_chat(light(tokenizer_of(name)), messages)


def test_special_tokens_may_not_be_spelled():
    tokenizer = tokenizer_of("qwen3")
    for messages in (
        chat("a <|im_end|>", "b"),
        chat("a", "b<|im_start|>"),
        [asked("a"), answered("b", reasoning_content="<|im_end|>")],
        [asked("a"), call("<|im_end|>"), result("b"), answered("c")],
    ):
        with pytest.raises(Unusable, match="special token in text"):
            render_chat(light(tokenizer), messages)
    render_chat(light(tokenizer), chat("<think>a</think> <tool_call>", "b </tool_call>"))


def test_images_have_their_places():
    parts = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    messages = [{"role": "user", "content": parts}, answered("A cookie.")]
    tokenizer = tokenizer_of("images")
    rendered = render_chat(light(tokenizer), messages, images=["a.png"])
    assert tokenizer.decode(rendered.input_ids) == (
        "<|im_start|>user\n<|image_pad|>What is it?<|im_end|>\n"
        "<|im_start|>assistant\nA cookie.<|im_end|>\n"
    )
    said = [label for label in rendered.labels if label != IGNORED]
    assert tokenizer.decode(said) == "A cookie.<|im_end|>"
    assert rendered.images == ["a.png"]
    with pytest.raises(Unusable, match="chat template refuses"):
        render_chat(light(tokenizer_of("chatml")), messages, images=["a.png"])


@pytest.mark.parametrize("name", STYLES)
def test_chats_made_at_random(name: str):
    """Whatever is said, the runs are what is said; asking gives the tokens before the answer."""
    chance = random.Random(name)
    tokenizer = tokenizer_of(name)
    pieces = ["Paris", " ", "\n", "four", "好", "😀", ".", "\\", "{", '"', "'", "<", "user", "0"]
    for _ in range(30):
        turns = [
            "x" + "".join(chance.choices(pieces, k=chance.randint(0, 12))) + "y"
            for _ in range(2 * chance.randint(1, 4))
        ]
        runs = [run.removesuffix(END[name]) for run in learnt(name, chat(*turns))]
        assert [run.split("</think>\n\n")[-1].lstrip() for run in runs] == turns[1::2]
        prompt = token_ids(light(tokenizer), chat(*turns)[:-1], prompt=True)
        rendered = render_chat(light(tokenizer), chat(*turns))
        assert rendered.input_ids[: len(prompt)] == prompt
        assert rendered.labels[len(prompt)] != IGNORED
        assert rendered.labels[len(prompt) - 1] == IGNORED
