"""A chat with adapters and their base: what was said, and commands. Knows no model or terminal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from launcher.records.run_names import near
from launcher.signals import Preempted, noted
from launcher.using.chosen import BASE
from recipes.errors import ShoalError
from recipes.files import write_whole

Message = dict[str, str]


class Speaker(Protocol):
    """What answers: adapters by their names, and `BASE`."""

    @property
    def names(self) -> Sequence[str]:
        """The adapters."""

    @property
    def goes_on(self) -> bool:
        """Whether a text is gone on with, because the base knows no chats."""

    def answer(self, who: str, messages: Sequence[Message]) -> Generator[str]:
        """The answer in pieces as they come; closing it early stops it. Raises `ShoalError`."""


class Screen(Protocol):
    """Where answers are shown."""

    interactive: bool
    """Whether a person sits there, whose Ctrl-C means the answer and not the program."""

    def begin(self, who: str, *, alone: bool) -> None: ...

    def piece(self, text: str) -> None: ...

    def end(self) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(slots=True)
class Turn:
    """What a person said, and what was answered by whom; by one at least."""

    said: str
    answers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Conversation:
    """One chat, whoever answers: who did not answer a turn takes over what was answered first."""

    system: str | None
    turns: list[Turn] = field(default_factory=list)

    def messages(self, who: str, said: str | None = None) -> list[Message]:
        """The chat as one answerer sees it, up to what is `said` now."""
        found = [{"role": "system", "content": self.system}] if self.system is not None else []
        for turn in self.turns:
            found.append({"role": "user", "content": turn.said})
            answer = turn.answers.get(who, next(iter(turn.answers.values())))
            found.append({"role": "assistant", "content": answer})
        if said is not None:
            found.append({"role": "user", "content": said})
        return found


class Chat:
    """Hears lines, one after another."""

    def __init__(self, speaker: Speaker, screen: Screen, system: str | None) -> None:
        self._speaker = speaker
        self._screen = screen
        self._conversation = Conversation(system)
        self._who: tuple[str, ...] = (speaker.names[0],)
        self._saved: set[Path] = set()
        if speaker.goes_on:
            screen.note(
                "The base has no chat template: it goes on with each line as it stands, without "
                "what was said before"
            )

    def hear(self, line: str) -> bool:
        """Answer a line, or do what it commands; False when the chat is over.

        A line that begins with a slash is a command; with a space before it, it is none.
        """
        if not line.startswith("/"):
            if line.strip():
                self._answer(line.strip())
            return True
        name, _, rest = line.strip().partition(" ")
        if name == "/quit":
            return False
        command = _COMMANDS.get(name)
        if command is None:
            meant = near(name, [*_COMMANDS, "/quit"])
            hint = f"Did you mean {meant}?" if meant else "/help lists them"
            self._screen.note(f"{name}: there is no such command. {hint}")
            return True
        try:
            command.does(self, rest.strip())
        except ShoalError as error:
            self._screen.note(str(error))
        return True

    def _answer(self, said: str) -> None:
        turn = Turn(said)
        for who in self._who:
            self._screen.begin(who, alone=len(self._who) == 1)
            whole = self._listen(who, self._conversation.messages(who, said), turn)
            self._screen.end()
            if not whole:
                break
        if turn.answers:  # else it was stopped, or refused, before a word
            self._conversation.turns.append(turn)

    def _listen(self, who: str, messages: Sequence[Message], turn: Turn) -> bool:
        """Show an answer and note it, as far as it came; whether it came to its end."""
        pieces: list[str] = []
        whole = False
        try:
            # Noted, and raised between two pieces: raised anywhere it could be lost, as in what
            # Python calls when it frees memory.
            with noted() as wishes, closing(self._speaker.answer(who, messages)) as answer:
                for piece in answer:
                    pieces.append(piece)
                    self._screen.piece(piece)
                    if wishes.count:
                        wishes.interrupt()
            whole = True
        except Preempted:
            raise
        except KeyboardInterrupt:
            if not self._screen.interactive:
                raise
            self._screen.note("(stopped)")
        except ShoalError as error:
            self._screen.note(str(error))
        text = "".join(pieces).strip()
        if text or whole:
            turn.answers[who] = text
        return whole

    def _adapter(self, name: str) -> None:
        names = list(self._speaker.names)
        if name in names:
            self._switch((name,))
        elif not name and len(names) == 1:
            self._switch((names[0],))
        elif not name:
            self._screen.note(f"Adapters: {', '.join(names)}. Now answers: {', '.join(self._who)}")
        else:
            meant = near(name, names)
            hint = f"Did you mean {meant}?" if meant else f"There are: {', '.join(names)}"
            self._screen.note(f"{name}: there is no such adapter. {hint}")

    def _base(self, _: str) -> None:
        self._switch((BASE,))

    def _both(self, _: str) -> None:
        adapters = [who for who in self._who if who != BASE]
        self._switch((BASE, *(adapters[:1] or self._speaker.names[:1])))

    def _compare(self, _: str) -> None:
        self._switch((BASE, *self._speaker.names))

    def _switch(self, who: tuple[str, ...]) -> None:
        self._who = who
        self._screen.note(f"Now answers: {', '.join(who)}")

    def _reset(self, _: str) -> None:
        self._conversation.turns.clear()
        self._screen.note("A new chat begins")

    def _system(self, text: str) -> None:
        if text == "off":
            self._conversation.system = None
        elif text:
            self._conversation.system = text
        system = self._conversation.system
        self._screen.note(f"System message: {system}" if system else "There is no system message")

    def _save(self, name: str) -> None:
        """As a row that can be trained on."""
        if not name:
            self._screen.note("/save FILE: name a file")
            return
        file = Path(_unquoted(name)).expanduser()
        messages = self._conversation.messages(self._who[0])
        if not self._conversation.turns:
            self._screen.note("Nothing was said yet")
        elif file.exists() and file.absolute() not in self._saved:
            self._screen.note(f"{file}: is there already; name another file")
        else:
            write_whole(file, json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
            self._saved.add(file.absolute())
            self._screen.note(f"Saved what {self._who[0]} heard and said to {file}")

    def _help(self, _: str) -> None:
        for name, command in _COMMANDS.items():
            self._screen.note(f"{name + command.takes:<16}{command.what}")
        self._screen.note(f"{'/quit':<16}end the chat; so does Ctrl-D. Ctrl-C stops an answer")


def _unquoted(text: str) -> str:
    try:
        return " ".join(shlex.split(text))
    except ValueError:  # an apostrophe
        return text


@dataclass(frozen=True, slots=True)
class _Command:
    takes: str
    what: str
    does: Callable[[Chat, str], None]


_COMMANDS = {
    "/adapter": _Command(" NAME", "this adapter answers; without a name, list them", Chat._adapter),
    "/base": _Command("", "the base answers, without any adapter", Chat._base),
    "/both": _Command("", "base and adapter answer, one after the other", Chat._both),
    "/compare": _Command("", "base and all adapters answer", Chat._compare),
    "/reset": _Command("", "forget what was said", Chat._reset),
    "/system": _Command(" TEXT", "set the system message; off removes it", Chat._system),
    "/save": _Command(" FILE", "save the chat as a row that can be trained on", Chat._save),
    "/help": _Command("", "this list", Chat._help),
}
