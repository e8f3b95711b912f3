"""What a person is told of a run's scores."""

from __future__ import annotations

from typing import Any

from launcher.records.summary import show_scores


class Tables:
    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.title = ""

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        self.title, self.rows = title, rows


def measured(loss: float, **more: Any) -> dict[str, Any]:
    return {"scores": {"rows": 30.0, "loss": loss, "exact_match": 0.5}, **more}


def test_scores_of_each_source_stand_below_those_of_all():
    display = Tables()
    sources = {
        "reviews": {"samples": 10.0, "loss": 1.0, "exact_match": 0.25},
        "letters": {"samples": 20.0, "loss": 3.0},
    }
    show_scores(measured(4.0), measured(2.0, sources=sources), display)  # type: ignore[arg-type]
    assert display.title.strip() == "On 30 held-out samples"
    assert display.rows == [
        ["exact_match", "0.500", "0.500"],
        ["loss", "4.000", "2.000"],
        ["exact_match of 10 from reviews", "–", "0.250"],
        ["loss of 10 from reviews", "–", "1.000"],
        ["loss of 20 from letters", "–", "3.000"],
    ]
    show_scores(None, measured(2.0), display)  # type: ignore[arg-type]
    assert [row[:2] for row in display.rows] == [["exact_match", "–"], ["loss", "–"]]
