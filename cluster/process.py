"""Commands of the operating system. The only place in shoal that calls `subprocess`."""

import os
import shlex
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from recipes.errors import ClusterError

STDERR_LINES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left behind: its exit status and its two outputs as text."""

    returncode: int
    stdout: str
    stderr: str


class CommandError(ClusterError):
    """A command that could not be started, ran out of time, or failed.

    `returncode` is the exit status (negative: the signal that ended it), or None when there is
    none because the command was not found or was stopped. `stderr` holds the last lines only.
    """

    def __init__(
        self, command: Sequence[str], returncode: int | None, why: str, stderr: str
    ) -> None:
        self.command = tuple(command)
        self.returncode = returncode
        self.why = why
        self.stderr = last_lines(stderr)
        shown = f":\n{self.stderr}" if self.stderr else ""
        super().__init__(f"`{shlex.join(self.command)}` {why}{shown}")

    def __reduce__(self) -> tuple[type["CommandError"], tuple[object, ...]]:
        return CommandError, (self.command, self.returncode, self.why, self.stderr)


def run(
    command: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    without: Collection[str] = (),
    cwd: str | Path | None = None,
    check: bool = True,
) -> Completed:
    """Run `command` without a shell, wait for it, and return what it printed.

    `env` is added to this process's own environment, the variables of `without` are taken out of
    it. The command reads nothing (stdin is empty) and is decoded as UTF-8, with bytes that are not
    UTF-8 replaced. When `timeout_s` seconds have passed, or this call is interrupted, the command
    is killed together with its children.

    Raises CommandError when the command cannot be started or runs out of time, and, with `check`,
    when it ends with a status other than 0.
    """
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: text for name, text in os.environ.items() if name not in without}
            | dict(env or {}),
            cwd=cwd,
            encoding="utf-8",
            errors="replace",
            # Its own session, so that killing it can reach its children too: a child that lives on
            # holds the pipes open, and waiting for the outputs would then never end.
            start_new_session=True,
        )
    except OSError as error:
        why = f"cannot be started ({error})"
        raise CommandError(command, None, why, "") from error
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _, stderr = _kill(process)
        why = f"was stopped after {timeout_s:g} s"
        raise CommandError(command, None, why, stderr) from None
    except BaseException:
        _kill(process)
        raise
    if check and process.returncode != 0:
        why = f"failed with status {process.returncode}"
        raise CommandError(command, process.returncode, why, stderr)
    return Completed(process.returncode, stdout, stderr)


def last_lines(text: str, count: int = STDERR_LINES_SHOWN) -> str:
    """Return the last `count` lines of `text` that are not blank."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:])


def _kill(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Kill the command's whole process group; return what it had printed."""
    with suppress(ProcessLookupError):  # it may have ended by itself in between
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()


def spawn(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, log: Path | None = None
) -> "subprocess.Popen[bytes]":
    """Start `command` and go on; what it prints is appended to `log`, or lost.

    Raises CommandError when it cannot be started.
    """
    try:
        with (log or Path(os.devnull)).open("ab") as output:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **env} if env else None,
                # A terminal's Ctrl-C is for the run, which then ends what it has started.
                start_new_session=True,
            )
    except OSError as error:
        raise CommandError(command, None, f"cannot be started ({error})", "") from error
