"""What came of preparing, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from launcher.inspection.readable import visible
from launcher.prepare.examples import commonest, line_of
from launcher.prepare.found import Prepared

_REASONS_SHOWN = 4
_FAILURES_SHOWN = 3


def lines(prepared: Prepared) -> Iterator[str]:
    """How much there is to train on, from which sources, and what was cut and set aside."""
    manifest = prepared.manifest
    yield _samples(manifest, fresh=prepared.fresh)
    # One of which nothing is left is told too; all of what is held out is not.
    trained = {
        name: source["train"]["samples"] + source["train"]["repeated"]
        for name, source in manifest["by_source"].items()
        if source["train"]["samples"] or not source["held_out"]["samples"]
    }
    if len(trained) > 1:
        yield f"  by source: {_listed(trained)}"
    shaped = [f"padding {manifest['splits']['train'].get('padding', 0):.2%}"]
    shaped = shaped if manifest["packing"] else []
    if manifest["cut"]:
        shaped.append(f"cut to fit: {_listed(manifest['cut'])}")
    if shaped:
        yield f"  {'; '.join(shaped)}"
    rejected = manifest["rejected"]
    if rejected:
        reasons = _listed(rejected, _REASONS_SHOWN)
        look = f"shoal inspect {prepared.folder.name[:12]} --rejected"
        yield f"  set aside: {reasons}; look at them with: {look}"
    for reason, examples in commonest(manifest.get("examples", {}), rejected)[:_FAILURES_SHOWN]:
        yield f"    {reason}, such as {visible(line_of(examples[0]))}"


def _samples(manifest: Mapping[str, Any], *, fresh: bool) -> str:
    train, held_out = (manifest["splits"][name] for name in ("train", "held_out"))
    text = (
        f"{train['samples']:,} training samples in {train['rows']:,} sequences "
        f"({train['supervised']:,} of {train['tokens']:,} tokens supervised), "
        f"{held_out['samples']:,} held out"
    )
    return f"Prepared {text}" if fresh else f"Data was prepared before, nothing to do: {text}"


def _listed(counts: Mapping[str, int], shown: int | None = None) -> str:
    """`120 duplicate, 7 too long and 12 for 3 other reasons`: the commonest first."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    first, rest = ordered[:shown], ordered[len(ordered) if shown is None else shown :]
    text = ", ".join(f"{count:,} {name}" for name, count in first)
    if not rest:
        return text
    others = "1 other reason" if len(rest) == 1 else f"{len(rest)} other reasons"
    return f"{text} and {sum(count for _, count in rest):,} for {others}"
