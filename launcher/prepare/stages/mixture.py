"""How often the samples of each source are taken, so that weights are met in exact counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from recipes.data import Source
from recipes.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Of `have` samples of a source, `take` are taken, spread evenly: sample `rank` of them is
    taken ⌊(rank + 1) · take / have⌋ - ⌊rank · take / have⌋ times. `first` is the rank of a unit's
    first sample."""

    have: int
    take: int
    first: int = 0

    def of(self, place: int) -> int:
        """How often the unit's sample number `place` (from 0, of those trained on) is taken."""
        rank = self.first + place
        return (rank + 1) * self.take // self.have - rank * self.take // self.have


def takes(
    have: Sequence[int], weights: Sequence[float | None], mix: Literal["repeat", "cut"]
) -> list[int]:
    """Samples to take of each source that has so many, (sources,).

    Sources without a weight are taken as they are. Of the others, the shares are those of the
    weights to the nearest sample: with `cut` no source gives a sample twice, with `repeat` none
    loses one. Weights are exact fractions of what the recipe says, so no rounding adds up.
    """
    exact = [None if weight is None else Fraction(str(weight)) for weight in weights]
    scales = [n / weight for n, weight in zip(have, exact, strict=True) if weight and n]
    if not scales:
        return list(have)
    scale = max(scales) if mix == "repeat" else min(scales)
    return [
        n if weight is None else (round(weight * scale) if n else 0)
        for n, weight in zip(have, exact, strict=True)
    ]


# A shard's samples are held in memory, copies too, and nobody means so many.
_MOST_COPIES = 1000


def check_takes(called: Sequence[str], have: Sequence[int], take: Sequence[int]) -> None:
    """Raises `DataError` for weights so far apart that of a source nothing would be left, or its
    samples be repeated more than a thousand times. Of each source: its name, samples, and those to
    take."""
    for name, samples, taken in zip(called, have, take, strict=False):
        if samples and not taken:
            raise DataError(
                f"data.train: not one of the {samples:,} samples of {name} is taken, so small is "
                "its weight beside the others. Raise it, or leave the source out"
            )
        if taken > samples * _MOST_COPIES:
            raise DataError(
                f"data.mix = repeat: the {samples:,} samples of {name} would be repeated "
                f"{taken // samples:,} times, so large is its weight beside the others. Lower it, "
                "or take less of the others with data.mix=cut"
            )


def names(sources: Sequence[Source]) -> list[str]:
    """What each source is called; of equal names that nobody gave, the later ones get a number."""
    found: list[str] = []
    seen: dict[str, int] = {}
    for source in sources:
        name = source.called
        if source.name is None:
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                name = f"{name} {seen[name]}"
        found.append(name)
    return found
