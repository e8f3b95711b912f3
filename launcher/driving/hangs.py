"""Telling which rank the others wait for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Time for the watcher itself, and for what is not a step's fault: a full page cache, a busy core.
_GRACE_S = 5.0
_STEPS = 3
_SILENT_S = 5.0
_LEAST_HANG_S = 60.0
_HANG_STEPS = 10
# Phases that are not steps take as long as the model and the data are large.
_OTHER_PHASE_S = 1800.0
_OTHER_SILENT_S = 120.0
_FIRST_STEP_S = 600.0
_STEP_PHASES = ("reading", "forward", "backward", "adding up")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What is known of a rank. Times are in seconds, by the clock of the one who listens."""

    phase: str
    step: int
    marks: int
    age_s: float
    """Since the rank was last heard."""
    still_s: float
    """Since it was heard to enter its phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """Ranks that the others wait for, and for how long. No rank is behind when all are listed."""

    ranks: tuple[int, ...]
    late_s: float
    limit_s: float
    silent: bool
    """Nothing is heard of them: they are stopped, or cannot be reached."""


def find_late(
    beats: Mapping[int, Beat], *, num_ranks: int, step_s: float | None, hang_s: float | None
) -> tuple[Late | None, bool]:
    """Who is late, if any, and whether it is time to act.

    `step_s` is the usual time of a step; None before the first was measured. Late is who takes
    three steps and a few seconds for one; to act is due after `hang_s`, or ten steps and at least a
    minute.
    """
    if len(beats) < num_ranks:
        return None, False  # not all have begun; Ray Train watches over their start
    silence_limit = math.inf  # within steps the others' waiting tells sooner
    if not _stepping(list(beats.values())):
        limit = act = _OTHER_PHASE_S
        silence_limit = _OTHER_SILENT_S
    elif step_s is None:
        limit = act = hang_s if hang_s is not None else _FIRST_STEP_S
    else:
        limit = _STEPS * step_s + _GRACE_S
        act = hang_s if hang_s is not None else max(_HANG_STEPS * step_s, _LEAST_HANG_S)
    # Of the rank that moved last: as long as any moves, nobody waits for ever.
    waited = min(max(beat.still_s, beat.age_s) for beat in beats.values())
    longest_silence = max(beat.age_s for beat in beats.values())
    if waited < limit and longest_silence < silence_limit:
        return None, False
    silent = tuple(rank for rank, beat in beats.items() if beat.age_s > _SILENT_S)
    fewest = min(beat.marks for beat in beats.values())
    behind = tuple(rank for rank, beat in beats.items() if beat.marks == fewest)
    late_s = max(waited, longest_silence)
    late = Late(ranks=silent or behind, late_s=late_s, limit_s=limit, silent=bool(silent))
    return late, late_s >= max(limit, act)


def _stepping(beats: Sequence[Beat]) -> bool:
    """Whether the ranks are within a step. What is last known of a silent one may be long past, so
    the others tell, if there are any."""
    telling = [beat for beat in beats if beat.age_s <= _SILENT_S] or beats
    return all(beat.phase in _STEP_PHASES for beat in telling)
