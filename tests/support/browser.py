"""A page in a real browser: headless Chromium, spoken to over a pipe by its DevTools protocol."""

from __future__ import annotations

import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE_S = 60.0
# Chromium is spoken to through the files 3 and 4.
_START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)


def browser() -> str:
    """The program, or the test is skipped; with SHOAL_BROWSER=required it fails."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        if os.environ.get("SHOAL_BROWSER") == "required":
            pytest.fail("SHOAL_BROWSER=required, and there is no chromium")
        pytest.skip("needs chromium")
    return found


class OpenPage:
    """A page that has loaded."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, back
        self._numbers = itertools.count(1)
        self._left = b""
        self._session: str | None = None
        self.complaints: list[str] = []
        """Errors and warnings of the console, scripts that failed, and what could not be loaded."""

    def open(self, url: str) -> None:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self._call("Page.navigate", url=url)
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is in the page, as JSON has it."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def emulate(self, feature: str, value: str) -> None:
        """A feature that style sheets ask for, such as prefers-color-scheme."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": feature, "value": value}])

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        until = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._back], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self._back, 2**16) if ready else b""
            assert part, "the browser does not answer"
            self._left += part
        first, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(params["args"]))
        elif method == "Network.loadingFailed":
            self.complaints.append(params["errorText"])


@contextmanager
def opened(file: Path, profile: Path) -> Iterator[OpenPage]:
    """A file in a browser of its own, whose `profile` is a folder that may be written to."""
    program = browser()
    with ExitStack() as stack:
        commands, to = os.pipe()
        back, answers = os.pipe()
        for end in (to, back):
            stack.callback(os.close, end)
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", _START, str(commands), str(answers)),
                *(program, "--headless=new", "--no-sandbox", "--disable-gpu"),
                *("--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"),
                *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(process.wait, _PATIENCE_S)
        stack.callback(process.kill)
        os.close(commands)
        os.close(answers)
        page = OpenPage(to, back)
        page.open(file.as_uri())
        yield page
        page._call("Browser.close")
