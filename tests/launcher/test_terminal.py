"""What a run shows, with and without a terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from launcher.pace import Pace
from launcher.terminal import (
    BarDisplay,
    LineDisplay,
    done_text,
    open_display,
    pace_text,
    seconds_text,
)


def metrics(step: int, steps: int = 100) -> dict[str, Any]:
    return {
        "step": step,
        "steps": steps,
        "loss": 1.5,
        "tokens_per_s": 1234.5,
        "seconds_left": 62.0,
    }


def show(terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, highlight=False)
    with open_display(console) as display:
        assert isinstance(display, BarDisplay if terminal else LineDisplay)
        display.phase("starting Ray", 0, 0)
        display.phase("starting Ray", 1, 1)
        display.phase("cleaning", 0, 4)
        for done in range(1, 5):
            display.phase("cleaning", done, 4, rows=1000 * done)
        display.line("12 rows [set aside]")
        for step in range(1, 101):
            display.step(metrics(step))
        display.table("Scores", ["", "before"], [["accuracy", "0.7"]])
    return stream.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_in_a_table_is_shown_as_it_is(terminal: bool):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=60, highlight=False)
    rows = [["a run of a long name, which a log need not fold", "[q_proj,v_proj]"]]
    open_display(console).table("", ["run", "adapter.targets"], rows)
    assert "[q_proj,v_proj]" in stream.getvalue()
    if not terminal:
        assert "  ".join(rows[0]) in stream.getvalue()


def test_lines_have_no_control_characters_and_are_few():
    lines = show(terminal=False).splitlines()
    assert "\x1b" not in "".join(lines)
    assert lines[:2] == ["starting Ray …", "starting Ray: done in 0 s"]
    assert lines[2:4] == ["cleaning …", "cleaning: done in 0 s · 4,000 rows"]
    assert "12 rows [set aside]" in lines
    steps = [line for line in lines if line.startswith("step ")]
    assert steps[0] == "step 1/100 · loss 1.5000 · 1,234 tokens/s · 1 min 02 s left"
    assert steps[-1].startswith("step 100/100")
    assert 10 <= len(steps) <= 13
    assert any("accuracy" in line and "0.7" in line for line in lines)


def test_bars_show_every_phase():
    text = show(terminal=True)
    for word in (
        *("starting Ray", "cleaning", "4,000 rows", "training", "100/100", "loss 1.5000"),
        "accuracy",
    ):
        assert word in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str):
    assert seconds_text(seconds) == text


def test_the_pace_of_a_phase():
    """Of the last half minute: what an earlier attempt left done is told at once."""
    pace = Pace()
    pace.tell(0.0, 0, 0)
    assert pace_text(pace, 100) == ""
    pace.tell(0.1, 40, 40_000)
    assert pace_text(pace, 100) == "40,000 rows"
    for second in range(1, 41):
        pace.tell(0.1 + second, 40 + second, 40_000 + 1_000 * second)
    assert pace_text(pace, 100) == "80,000 rows · 1,000 rows/s · 20 s left"
    assert done_text(pace) == f"80,000 rows · {80_000 / 40.1:,.0f} rows/s"


def test_a_phase_without_rows_tells_its_time():
    pace = Pace()
    for second in range(5):
        pace.tell(float(second), second, 0)
    assert pace_text(pace, 10) == "6 s left"
    assert done_text(pace) == ""
