"""`shoal chat` as a person meets it: on a terminal, and through a pipe."""

from __future__ import annotations

import codecs
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launcher.cli import app
from support import tiny

SHOAL = str(Path(sys.executable).parent / "shoal")
_PATIENCE_S = 300.0


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/mine on a base that goes on talking until it is stopped."""
    from support import used

    root = tmp_path_factory.mktemp("chat")
    base = tiny.make_llama(root / "llama")
    for name, change in (
        ("config.json", {"max_position_embeddings": 100_000}),
        ("generation_config.json", {"suppress_tokens": [0, 1, 2, 3, 4, 5]}),
    ):
        file = base / name
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    used.make_run(root / "runs", "mine", base)
    return root


class Terminal:
    """A program on a terminal of its own, typed to and read."""

    def __init__(self, arguments: list[str], cwd: Path) -> None:
        self.screen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._master, terminal = pty.openpty()
        self.process = subprocess.Popen(
            arguments, cwd=cwd, stdin=terminal, stdout=terminal, stderr=terminal,
            start_new_session=True, env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
            preexec_fn=lambda: _take(terminal),
        )  # fmt: skip
        os.close(terminal)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def press(self, key: str, *, until: str) -> None:
        """A person's way with Ctrl-C, which input() misses in the moment it begins to wait."""
        for _ in range(int(_PATIENCE_S / 5)):
            self.type(key)
            with suppress(AssertionError):
                self.wait_for(until, 5.0)
                return
        raise AssertionError(f"{until} did not come in {self.screen[-2000:]}")

    def wait_for(self, pattern: str, patience_s: float = _PATIENCE_S) -> str:
        """What came on the screen up to the first match, which is forgotten with it."""
        deadline = time.monotonic() + patience_s
        while (match := re.search(pattern, self.screen)) is None:
            assert time.monotonic() < deadline, f"{pattern} did not come in {self.screen[-2000:]}"
            if select.select([self._master], [], [], 1.0)[0]:
                try:
                    # What is read may end in the middle of a character.
                    self.screen += self._decoder.decode(os.read(self._master, 65536))
                except OSError:  # the program has ended
                    assert re.search(pattern, self.screen), self.screen[-2000:]
        found, self.screen = self.screen[: match.end()], self.screen[match.end() :]
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._master)


def _take(terminal: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(workplace: Path) -> Iterator[Terminal]:
    arguments = [SHOAL, "chat", "mine", "--max-new-tokens", "90000"]
    found = Terminal(arguments, workplace)
    yield found
    found.close()


def test_on_a_terminal(terminal: Terminal):
    terminal.wait_for(r"Answers: mine\. /help lists commands")
    terminal.wait_for("you> ")
    terminal.type("w1 w2\n")
    terminal.wait_for(r"mine> .*w\d+ ")  # while it is still talking
    terminal.wait_for(r"w\d+ w\d+ ")
    terminal.type("\x03")
    terminal.wait_for(r"\(stopped\)")
    terminal.wait_for("you> ")
    terminal.type("/both\n")
    terminal.wait_for("Now answers: base, mine")
    terminal.wait_for("you> ")
    terminal.type("w3\n")
    terminal.wait_for(r"base> .*w\d+ ")
    terminal.type("\x03")
    terminal.wait_for(r"\(stopped\)[\s\S]*you> ")
    terminal.press("\x03", until="Ctrl-D or /quit ends the chat")  # it ends nothing
    terminal.wait_for("you> ")
    terminal.type("/save said.jsonl\n")
    terminal.wait_for("Saved what base heard")
    terminal.wait_for("you> ")
    terminal.type("\x04")
    assert terminal.process.wait(timeout=_PATIENCE_S) == 0


def test_through_a_pipe(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(workplace)
    lines = "w1 w2\n/compare\nw3 \xff w4\n\n".encode("latin-1")
    done = CliRunner().invoke(app, ["chat", "mine", "--max-new-tokens", "5"], input=lines)
    assert done.exit_code == 0, done.output
    first, *rest = done.stdout.splitlines()
    assert re.fullmatch(r"w\d+( w\d+){4}", first.strip())
    assert [line for line in rest if line.startswith("[")] == ["[base]", "[mine]"]
    assert len(rest) == 4
    assert "\x1b" not in done.stdout
    assert "Now answers: base, mine" in done.stderr
