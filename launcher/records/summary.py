"""What a run came to, for a person: scores and answers before and after, and what to do next."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.session import Outcome
from launcher.terminal import Display
from recipes.address import is_address

_SCORES = ("accuracy", "exact_match", "f1", "f1_micro", "loss", "perplexity")
_SCORES_OF_SOURCES = ("accuracy", "exact_match", "loss")


def show_outcome(outcome: Outcome, display: Display) -> None:
    """Tell how a run ended."""
    run = outcome.name if is_address(outcome.name) else _short(outcome.run_dir)
    if outcome.stopped is not None:
        display.line(f"Stopped after step {outcome.steps}; saved in {_short(outcome.checkpoint)}")
        display.line(f"Go on with: {_shoal()} resume {run}")
        return
    show_scores(outcome.before, outcome.after, display)
    _show_answers(outcome.before, outcome.after, display)
    if outcome.checkpoint is not None:
        display.line(f"\nThe adapter lies in {_short(outcome.checkpoint)}/adapter")
    display.line("Next:")
    commands = [(f"eval {run}", "measure it again"), ("init", "begin your own")]
    if outcome.task == "causal_lm":
        commands.insert(0, (f'generate {run} "..."', "ask it something"))
        commands.insert(1, (f"chat {run}", "talk to it, and to its base"))
    width = max(len(command) for command, _ in commands)
    for command, what in commands:
        display.line(f"  {_shoal()} {command:<{width}}  {what}")


def show_scores(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, display: Display
) -> None:
    """Scores on the held-out rows, side by side."""
    measured = [found for found in (before, after) if found is not None]
    if not measured:
        return
    last = measured[-1]
    names = [name for name in _SCORES if name in last["scores"]]
    count = int(last["scores"]["rows"])
    rows = [[name, _score(before, name), _score(after, name)] for name in names]
    # A run that an earlier shoal began tells no sources.
    for source, told in last.get("sources", {}).items():
        samples = f"of {int(told['samples'])} from {source}"
        rows += [
            [f"{name} {samples}", _score(before, name, source), _score(after, name, source)]
            for name in _SCORES_OF_SOURCES
            if name in told
        ]
    display.table(f"\nOn {count} held-out samples", ["", "before", "after"], rows)


def _score(found: Mapping[str, Any] | None, name: str, source: str | None = None) -> str:
    if found is None:
        return "–"
    scores = found["scores"] if source is None else found.get("sources", {}).get(source, {})
    return f"{scores[name]:.3f}" if name in scores else "–"


def _show_answers(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, display: Display
) -> None:
    answers = [found["answers"] if found else [] for found in (before, after)]
    for number in range(max(len(part) for part in answers)):
        known = [part[number] for part in answers if number < len(part)]
        display.line(f"\nAsked:   {_one_line(known[0]['prompt'])}")
        for label, part in zip(("Before: ", "After:  "), answers, strict=True):
            if number < len(part):
                display.line(f"{label} {_one_line(part[number]['answer'])}")
        display.line(f"Right:   {_one_line(known[0]['right'])}")


def _shoal() -> str:
    """How this command is typed here: by its name, or by its path when the name leads elsewhere."""
    found, called = shutil.which("shoal"), Path(sys.argv[0])
    if found is not None and called.exists() and Path(found).samefile(called):
        return "shoal"
    return _short(called.absolute())


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 200 else flat[:199] + "…"


def _short(path: Path | None) -> str:
    """A path relative to the working directory where that is shorter."""
    if path is None:
        return "–"
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
