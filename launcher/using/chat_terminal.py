"""A chat on a terminal, or through pipes: reading lines, showing answers as they come."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

from rich.console import Console
from rich.text import Text

from adapters.quiet import quiet_transformers
from launcher.signals import Preempted
from launcher.terminal import open_display
from launcher.using.answers import check_answers_prompts
from launcher.using.chat import Chat, Screen, Speaker
from launcher.using.chosen import choose, open_all
from launcher.using.speaker import OpenedSpeaker

_YOU = "you> "
# What a model says must not move the cursor or ring the bell.
_CONTROL = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])


class TerminalScreen:
    """For a person: each answer after the name of who gives it."""

    interactive = True

    def __init__(self, console: Console) -> None:
        self._console = console
        self._column = 0

    def begin(self, who: str, *, alone: bool) -> None:
        self._console.print(Text(f"{who}> ", style="bold cyan"), end="", soft_wrap=True)
        self._column = 1

    def piece(self, text: str) -> None:
        shown = text.translate(_CONTROL)
        self._console.print(Text(shown), end="", soft_wrap=True)
        self._column = 0 if shown.endswith("\n") else 1

    def end(self) -> None:
        if self._column:
            self._console.print()
        self._column = 0

    def note(self, text: str) -> None:
        self.end()
        self._console.print(Text(text, style="dim"), soft_wrap=True)


class PlainScreen:
    """For a pipe: the answers alone, all else on the other console."""

    interactive = False

    def __init__(self, out: Console, notes: Console) -> None:
        self._out = out
        self._notes = notes

    def begin(self, who: str, *, alone: bool) -> None:
        if not alone:
            self._out.out(f"[{who}]", highlight=False)

    def piece(self, text: str) -> None:
        self._out.out(text, end="", highlight=False)

    def end(self) -> None:
        self._out.out("", highlight=False)

    def note(self, text: str) -> None:
        self._notes.out(text, highlight=False)


def open_screen() -> Screen:
    """The screen that fits where this process reads from and writes to."""
    out = Console(highlight=False)
    if sys.stdin.isatty() and out.is_terminal:
        return TerminalScreen(out)
    return PlainScreen(out, Console(stderr=True, highlight=False))


def chat_with(
    runs: Sequence[str],
    *,
    overrides: Sequence[str],
    system: str | None,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
) -> None:
    """Open adapters over their base, and chat until the lines end."""
    screen = open_screen()
    with quiet_transformers():
        # What is told on the way goes to the standard error, as in any pipe.
        with open_display(Console(stderr=True, highlight=False)) as display:
            chosen = choose(runs, overrides, display.line)
            check_answers_prompts(chosen[0].recipe, runs[0])
            display.phase("opening the base", 0, 0)
            opened = open_all(chosen)
            display.phase("opening the base", 1, 1)
        from trainer.generation import Sampling

        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
        system = system if system is not None else chosen[0].recipe.data.system
        hold(OpenedSpeaker(opened, sampling), screen, system)


def hold(speaker: Speaker, screen: Screen, system: str | None) -> None:
    """Chat until the lines, or the person's wish for it, end."""
    chat = Chat(speaker, screen, system)
    if screen.interactive:
        screen.note(f"Answers: {', '.join(speaker.names)}. /help lists commands, Ctrl-D ends")
    for line in _typed(screen) if screen.interactive else _piped():
        try:
            if not chat.hear(line):
                return
        except Preempted:
            raise
        except KeyboardInterrupt:  # between two answers
            if not screen.interactive:
                raise


def _typed(screen: Screen) -> Iterator[str]:
    with suppress(ImportError):
        import readline  # noqa: F401, gives input() a memory and keys to edit with
    while True:
        try:
            yield input(_YOU)
        except EOFError:
            print()
            return
        except Preempted:
            raise
        except KeyboardInterrupt:
            print()
            screen.note("Ctrl-D or /quit ends the chat")


def _piped() -> Iterator[str]:
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "replace").rstrip("\r\n")
