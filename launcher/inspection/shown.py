"""Prepared data on a terminal, or as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from launcher.inspection.decoder import Piece
from launcher.inspection.figures import Figures, SourceFigures
from launcher.inspection.histogram import Histogram
from launcher.inspection.readable import middle_left_out, visible
from launcher.inspection.rejected import RejectedRow
from launcher.inspection.samples import SeenSample, SeenSequence, file_name
from launcher.prepare.examples import line_of
from recipes.listing import listed

_BAR_WIDTH = 40
_CHARACTERS_SHOWN = 2_000
_STYLES = {
    (False, False): "dim",
    (True, False): "green",
    (False, True): "cyan",
    (True, True): "bold green",
}
"""By whether a piece is learnt, and whether it is special."""


def show_figures(console: Console, figures: Figures) -> None:
    """Counts by source, why rows were set aside, and how long samples and sequences are."""
    console.print(f"{figures.key}  {figures.folder}", markup=False, soft_wrap=True)
    for line in facts(figures):
        console.print(line, markup=False, soft_wrap=True)
    console.print()
    console.print(_sources(figures))
    if figures.reasons:
        console.print()
        console.print(_reasons(figures))
        _show_examples(console, figures)
    for title, found in histograms(figures):
        console.print()
        console.print(f"{title}: {histogram_text(found)}", style="bold", soft_wrap=True)
        console.print(_histogram(found))


def facts(figures: Figures) -> list[str]:
    """What is told in a line each."""
    made = f"Prepared by the recipe {figures.recipe}" if figures.recipe else "Prepared"
    base = f" for {figures.base}" if figures.base else ""
    lines = [
        f"{made}{base}: {figures.task}, sequences of up to {figures.sequence_length:,} tokens",
        f"{figures.sequences:,} sequences to train on, {figures.held_out_sequences:,} held out",
    ]
    if figures.padding is not None:
        lines[-1] += f"; {figures.padding:.2%} padding when they are filled up"
    if figures.labels:
        lines.append(f"Labels: {listed(figures.labels)}")
    if figures.cut:
        lines.append(f"Cut to fit: {_listed(figures.cut)}")
    if figures.changed:
        lines.append(f"Changed by cleaning: {_listed(figures.changed)}")
    return lines


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def source_columns(figures: Figures) -> list[str]:
    """Those that say something of this data."""
    columns = ["source", "rows", "samples", "held out", "tokens", "supervised", "set aside"]
    columns += ["repeated"] if figures.total.repeated else []
    return columns + (["left out of mix"] if figures.total.left_out else [])


def source_cells(source: SourceFigures, columns: Sequence[str]) -> list[str]:
    """A source in these columns."""
    share = f"{source.supervised / source.tokens:.1%}" if source.tokens else ""
    cells = {
        "source": visible(source.name),
        "rows": f"{source.rows:,}",
        "samples": f"{source.samples:,}",
        "held out": f"{source.held_out:,}",
        "tokens": f"{source.tokens:,}",
        "supervised": share,
        "set aside": f"{source.set_aside:,}",
        "repeated": f"{source.repeated:,}",
        "left out of mix": f"{source.left_out:,}",
    }
    return [cells[column] for column in columns]


def all_sources(figures: Figures) -> list[SourceFigures]:
    """Each, and their sum where there are several."""
    return [*figures.sources, *([figures.total] if len(figures.sources) > 1 else [])]


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _sources(figures: Figures) -> Table:
    columns = source_columns(figures)
    table = _table(columns)
    for source in all_sources(figures):
        table.add_row(*map(Text, source_cells(source, columns)))
    return table


def _reasons(figures: Figures) -> Table:
    table = _table(["set aside because", "rows", "of all rows", "sources"])
    for reason in figures.reasons:
        share = reason.rows / figures.total.rows
        by_source = ", ".join(f"{visible(n)} {count:,}" for n, count in reason.by_source.items())
        cells = (visible(reason.name), f"{reason.rows:,}", f"{share:.2%}", by_source)
        table.add_row(*map(Text, cells))
    return table


def _show_examples(console: Console, figures: Figures) -> None:
    for reason in figures.reasons:
        if reason.examples:
            console.print()
            console.print(f"{visible(reason.name)}, such as", markup=False)
            for example in reason.examples:
                console.print(Text(f"  {visible(line_of(example))}", style="dim"), soft_wrap=True)


def histograms(figures: Figures) -> list[tuple[str, Histogram]]:
    """Those there are, with a title."""
    read, there = figures.shards_read
    part = f", from {read:,} of {there:,} shards" if read < there else ""
    pairs = [
        (f"Tokens of a training sample{part}", figures.per_sample),
        ("Tokens of a training sequence", figures.per_sequence),
    ]
    return [(title, found) for title, found in pairs if found is not None]


def histogram_text(found: Histogram) -> str:
    return f"mean {found.mean:,.0f}, median {found.median:,}, longest {found.longest:,}"


def _histogram(found: Histogram) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column(width=_BAR_WIDTH)
    table.add_column(justify="right")
    for number, count in enumerate(found.counts):
        bar = Bar(found.highest, 0, count, width=_BAR_WIDTH, color="green")
        table.add_row(Text(found.label(number)), bar, Text(f"{count:,}"))
    return table


def show_sequences(console: Console, sequences: Sequence[SeenSequence], *, whole: bool) -> None:
    """Samples as the model sees them. Long ones only in part, but if `whole`."""
    is_plain = console.color_system is None or console.no_color
    for sequence in sequences:
        console.print()
        console.rule(Text(sequence_title(sequence)), align="left", characters="─")
        for sample in sequence.samples:
            console.print(Text(sample_title(sample), style="bold"), soft_wrap=True)
            text = _written(sample, is_plain=is_plain, whole=whole)
            console.print(text, soft_wrap=True, end="" if text.plain.endswith("\n") else "\n")
        if sequence.left:
            console.print(
                f"and {sequence.left:,} more in this sequence: --split {sequence.split} "
                f"--row {sequence.row}",
                style="dim",
            )
    console.print()
    for line in legend(sequences, is_plain=is_plain):
        console.print(line, style="dim", markup=False, soft_wrap=True)


def legend(sequences: Sequence[SeenSequence], *, is_plain: bool) -> list[str]:
    """How what is learnt is told from what is given."""
    if not any(sample.learnt for sequence in sequences for sample in sequence.samples):
        return []
    how = "between ⟦ and ⟧" if is_plain else "green"
    return [f"What the model learns to say is {how}; the rest is given to it"]


def sequence_title(sequence: SeenSequence) -> str:
    count = len(sequence.samples) + sequence.left
    about = f", {sequence.about}" if sequence.about else ""
    samples = "1 sample" if count == 1 else f"{count:,} samples"
    split = sequence.split.replace("_", "-")
    return f"{split} sequence {sequence.row}: {sequence.tokens:,} tokens, {samples}{visible(about)}"


def sample_title(sample: SeenSample) -> str:
    origin = sample.origin
    return visible(
        f"▸ {origin.source}, {file_name(origin.file)} row {origin.row:,} (sample {sample.id}): "
        f"{sample.tokens:,} tokens, {sample.learnt:,} learnt"
    )


def _written(sample: SeenSample, *, is_plain: bool, whole: bool) -> Text:
    text = Text()
    most = _CHARACTERS_SHOWN // max(1, len(sample.pieces))
    for piece in sample.pieces:
        shown = visible(piece.text)
        if not whole and not piece.special:
            shown = middle_left_out(shown, max(most, 200))
        text.append(_marked(shown, piece) if is_plain else shown, _STYLES[_kind(piece)])
    if is_plain:
        # Pieces that are learnt one after another are one stretch.
        return Text(text.plain.replace("⟧⟦", ""))
    return text


def _marked(text: str, piece: Piece) -> str:
    return f"⟦{text}⟧" if piece.learnt else text


def _kind(piece: Piece) -> tuple[bool, bool]:
    return piece.learnt, piece.special


def rejected_title(reason: str, counts: Mapping[str, int]) -> str:
    rows = "1 row" if counts[reason] == 1 else f"{counts[reason]:,} rows"
    return f"{visible(reason)}: {rows}"


def show_rejected(console: Console, rows: Sequence[RejectedRow], counts: Mapping[str, int]) -> None:
    """Rows that were set aside, by reason."""
    if not rows:
        console.print("No row was set aside")
    told = ""
    for row in rows:
        if row.reason != told:
            told = row.reason
            console.print()
            console.rule(Text(rejected_title(told, counts)), align="left", characters="─")
        detail = f": {visible(row.detail)}" if row.detail else ""
        place = f"▸ {visible(row.file)} row {row.row:,}{detail}"
        console.print(Text(place, style="bold"), soft_wrap=True)
        shown = middle_left_out(visible(row.text), _CHARACTERS_SHOWN)
        console.print(Text(shown, style="dim"), soft_wrap=True)
