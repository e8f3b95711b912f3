"""The job that `cluster.kind: ray_job` submits through Ray's Jobs API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class RayJob:
    code: str | None = None
    """Folder of code to send along, such as a checkout of shoal; the cluster's if left out."""

    python: str = "python"
    """Python on the cluster's head that has shoal installed, such as `/opt/venv/bin/python`."""

    stop_s: int = 300
    """How long the run may take to save after `shoal stop`, before Ray kills it (seconds)."""

    def problems(self) -> Iterator[Problem]:
        if self.stop_s < 1:
            yield Problem(
                path="ray_job.stop_s", value=self.stop_s, message="is too short", allowed="≥ 1"
            )
        if not self.python.strip() or "\n" in self.python:
            yield Problem(path="ray_job.python", value=self.python, message="is no command")
