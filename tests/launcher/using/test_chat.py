"""A chat by its functions: who answers, what is remembered, and the commands."""

from __future__ import annotations

import json
import signal
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from launcher.signals import Preempted
from launcher.using.chat import Chat
from recipes.errors import DataError


class Echo:
    """Answers with its name and what it heard, word by word; `raises` instead of its third."""

    def __init__(self, *names: str, goes_on: bool = False) -> None:
        self.names: Sequence[str] = names
        self.goes_on = goes_on
        self.heard: list[tuple[str, list[dict[str, str]]]] = []
        self.raises: BaseException | None = None
        self.closed = 0

    def answer(self, who: str, messages: Sequence[dict[str, str]]) -> Generator[str]:
        self.heard.append((who, list(messages)))
        try:
            for number, word in enumerate(f"{who} heard {messages[-1]['content']}".split(" ")):
                if number == 2 and self.raises is not None:
                    raise self.raises
                yield f"{word} "
        finally:
            self.closed += 1


class Paper:
    """A screen that is read afterwards."""

    def __init__(self, *, interactive: bool = True) -> None:
        self.interactive = interactive
        self.lines: list[str] = []
        self.notes: list[str] = []

    def begin(self, who: str, *, alone: bool) -> None:
        self.lines.append("" if alone else f"{who}: ")

    def piece(self, text: str) -> None:
        self.lines[-1] += text

    def end(self) -> None:
        self.lines[-1] = self.lines[-1].strip()

    def note(self, text: str) -> None:
        self.notes.append(text)


def contents(messages: Sequence[dict[str, str]]) -> list[str]:
    return [f"{message['role'][0]}:{message['content']}" for message in messages]


@pytest.fixture
def speaker() -> Echo:
    return Echo("one", "two")


@pytest.fixture
def paper() -> Paper:
    return Paper()


def test_turns_are_remembered_with_the_system_message(speaker: Echo, paper: Paper):
    chat = Chat(speaker, paper, "Be kind.")
    assert chat.hear("hello")
    assert chat.hear("again")
    assert chat.hear("  ")
    assert paper.lines == ["one heard hello", "one heard again"]
    assert contents(speaker.heard[1][1]) == [
        "s:Be kind.",
        "u:hello",
        "a:one heard hello",
        "u:again",
    ]
    chat.hear("/reset")
    chat.hear("/system off")
    chat.hear("new")
    assert contents(speaker.heard[2][1]) == ["u:new"]
    chat.hear("/system Be brief.")
    chat.hear(" /etc is a folder")
    assert contents(speaker.heard[3][1])[0] == "s:Be brief."
    assert contents(speaker.heard[3][1])[-1] == "u:/etc is a folder"
    assert not chat.hear("/quit")


def test_who_answers(speaker: Echo, paper: Paper):
    chat = Chat(speaker, paper, None)
    chat.hear("a")
    chat.hear("/both")
    chat.hear("b")
    chat.hear("/adapter two")
    chat.hear("c")
    chat.hear("/both")
    chat.hear("/base")
    chat.hear("d")
    chat.hear("/compare")
    chat.hear("e")
    assert [who for who, _ in speaker.heard] == [
        "one", "base", "one", "two", "base", "base", "one", "two",
    ]  # fmt: skip
    assert paper.lines[1:4] == ["base: base heard b", "one: one heard b", "two heard c"]
    assert paper.notes[2] == "Now answers: base, two"
    # Who did not answer a turn goes on from what was answered first; who did, from its own words.
    base, one, _ = (contents(messages) for _, messages in speaker.heard[-3:])
    assert base[:4] == ["u:a", "a:one heard a", "u:b", "a:base heard b"]
    assert one[:4] == ["u:a", "a:one heard a", "u:b", "a:one heard b"]
    assert base[4:] == one[4:] == ["u:c", "a:two heard c", "u:d", "a:base heard d", "u:e"]


def test_ctrl_c_stops_the_answer_and_not_the_chat(speaker: Echo, paper: Paper):
    chat = Chat(speaker, paper, None)
    speaker.raises = KeyboardInterrupt()
    chat.hear("/both")
    chat.hear("long story")
    assert paper.lines == ["base: base heard"]  # the second was not asked any more
    assert paper.notes[-1] == "(stopped)"
    assert speaker.closed == 1
    speaker.raises = None
    chat.hear("/base")
    chat.hear("go on")
    assert contents(speaker.heard[-1][1]) == ["u:long story", "a:base heard", "u:go on"]
    speaker.raises = Preempted()
    with pytest.raises(Preempted):
        chat.hear("more")
    piped = Chat(speaker, Paper(interactive=False), None)
    speaker.raises = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        piped.hear("more")


class Finalized:
    """Ctrl-C while Python frees something, where what is raised is only printed."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_not_lost_where_it_cannot_be_raised(
    speaker: Echo, paper: Paper, monkeypatch: pytest.MonkeyPatch
):
    shown = paper.piece

    def piece(text: str) -> None:
        Finalized()
        shown(text)

    monkeypatch.setattr(paper, "piece", piece)
    Chat(speaker, paper, None).hear("long story")
    assert paper.lines == ["one"]
    assert paper.notes == ["(stopped)"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_cannot_be_answered_is_told_and_forgotten(paper: Paper):
    class Refusing(Echo):
        def answer(self, who: str, messages: Sequence[dict[str, str]]) -> Generator[str]:
            if messages[-1]["content"] == "no":
                raise DataError("The chat is too long. /reset begins a new one")
            yield from super().answer(who, messages)

    speaker = Refusing("one", goes_on=True)
    chat = Chat(speaker, paper, None)
    assert paper.notes[0].startswith("The base has no chat template")
    chat.hear("no")
    chat.hear("yes")
    assert paper.notes[1:] == ["The chat is too long. /reset begins a new one"]
    assert contents(speaker.heard[0][1]) == ["u:yes"]


def test_wrong_commands(speaker: Echo, paper: Paper):
    chat = Chat(speaker, paper, None)
    chat.hear("/adaptor two")
    chat.hear("/adapter tow")
    chat.hear("/adapter")
    chat.hear("/x")
    chat.hear("/help")
    assert paper.notes[:4] == [
        "/adaptor: there is no such command. Did you mean /adapter?",
        "tow: there is no such adapter. Did you mean two?",
        "Adapters: one, two. Now answers: one",
        "/x: there is no such command. /help lists them",
    ]
    told = " ".join(paper.notes[4:])
    for name in ("adapter", "base", "both", "compare", "reset", "system", "save", "help", "quit"):
        assert f"/{name}" in told
    assert speaker.heard == []


def test_a_chat_is_saved_as_a_row_to_train_on(speaker: Echo, paper: Paper, tmp_path: Path):
    file = tmp_path / "my chat.jsonl"
    chat = Chat(speaker, paper, "Be kind.")
    chat.hear(f"/save {file}")
    assert paper.notes == ["Nothing was said yet"]
    chat.hear("hello")
    chat.hear(f"/save '{file}'")
    chat.hear("you")
    chat.hear(f"/save {file}")  # its own file may be written again
    [line] = file.read_text().splitlines()
    assert contents(json.loads(line)["messages"]) == [
        "s:Be kind.", "u:hello", "a:one heard hello", "u:you", "a:one heard you",
    ]  # fmt: skip
    other = tmp_path / "other.txt"
    other.write_text("mine")
    chat.hear(f"/save {other}")
    chat.hear(f"/save {tmp_path}/nowhere/x.jsonl")
    assert other.read_text() == "mine"
    assert "is there already" in paper.notes[-2]
    assert "nowhere/x.jsonl: cannot be written" in paper.notes[-1]
