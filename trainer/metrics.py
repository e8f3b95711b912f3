"""The run's curve: metrics.jsonl, one line a step, one curve per run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from recipes.errors import StorageError
from recipes.files import lines_from_end, write_whole


class StepLog:
    """A file with one JSON line per step, in order. A run that goes on from an earlier step first
    drops the lines after it, so that the file shows one curve whatever happened."""

    def __init__(self, file: Path, *, resume_after: int) -> None:
        """Keep the lines of steps up to `resume_after` (0 keeps none)."""
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = [json.dumps(line) for line in read_steps(file) if line["step"] <= resume_after]
        write_whole(file, "".join(f"{line}\n" for line in kept))
        # Kept open: a rank of an earlier attempt that still lives writes into the file that was
        # replaced, where nobody looks.
        self._stream = file.open("a", encoding="utf-8")

    def append(self, line: Mapping[str, Any]) -> None:
        try:
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()
        except OSError as error:
            raise StorageError(f"{self._file}: cannot be written: {error}") from error


def last_step(file: Path) -> dict[str, Any] | None:
    """The last whole line of a step log, without reading those before it."""
    for line in lines_from_end(file):
        with suppress(json.JSONDecodeError):  # it was cut off
            found: dict[str, Any] = json.loads(line)
            return found
    return None


def read_steps(file: Path) -> list[dict[str, Any]]:
    """The lines of a step log; a last line that was cut off is left out."""
    if not file.is_file():
        return []
    steps = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            steps.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return steps
