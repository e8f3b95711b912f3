"""Prepared data as one HTML page that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launcher.inspection import shown
from launcher.inspection.command import Seen
from launcher.inspection.histogram import Histogram
from launcher.inspection.readable import visible

_TEMPLATE = "page.html"
_BAR, _GAP, _HEIGHT = 36, 4, 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A bar of a histogram, in pixels of its picture."""

    x: int
    y: float
    height: float
    label: str
    count: int


def bars_of(found: Histogram) -> list[Drawn]:
    """The bars, from the left; the highest is as high as the picture."""
    drawn = []
    for number, count in enumerate(found.counts):
        height = _HEIGHT * count / found.highest
        if count:
            height = max(height, 1.0)  # a few are not none
        drawn.append(
            Drawn(
                x=number * (_BAR + _GAP),
                y=round(_HEIGHT - height, 1),
                height=round(height, 1),
                label=found.label(number),
                count=count,
            )
        )
    return drawn


def page_of(seen: Seen) -> str:
    """The page. Whatever rows hold is text in it, never markup."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["visible"] = visible
    template = environment.from_string(
        (Path(__file__).parent / _TEMPLATE).read_text(encoding="utf-8")
    )
    assert seen.figures is not None
    columns = shown.source_columns(seen.figures)
    return template.render(
        figures=seen.figures,
        facts=shown.facts(seen.figures),
        columns=columns,
        sources=[shown.source_cells(source, columns) for source in shown.all_sources(seen.figures)],
        histograms=[
            (title, shown.histogram_text(found), bars_of(found), len(found.counts) * (_BAR + _GAP))
            for title, found in shown.histograms(seen.figures)
        ],
        bar_width=_BAR,
        height=_HEIGHT,
        sequences=seen.sequences,
        legend=shown.legend(seen.sequences, is_plain=False),
        rejected=seen.rejected,
        counts=seen.counts,
        sequence_title=shown.sequence_title,
        sample_title=shown.sample_title,
        rejected_title=shown.rejected_title,
    )
