"""Telling who is late from what was heard of the ranks."""

from __future__ import annotations

from launcher.driving.hangs import Beat, find_late


def beat(marks: int, still_s: float, age_s: float = 0.5, phase: str = "forward") -> Beat:
    return Beat(phase=phase, step=9, marks=marks, age_s=age_s, still_s=still_s)


def late(beats: list[Beat], step_s: float | None = 1.0, hang_s: float | None = None):
    return find_late(dict(enumerate(beats)), num_ranks=len(beats), step_s=step_s, hang_s=hang_s)


def test_nobody_is_late_while_any_moves():
    assert late([beat(40, 0.2), beat(39, 30.0)]) == (None, False)


def test_three_steps_and_a_moment_are_waited():
    assert late([beat(40, 7.9), beat(40, 7.9)]) == (None, False)
    assert late([beat(40, 8.1), beat(40, 8.1)])[0] is not None


def test_a_stopped_rank_is_the_one_that_is_silent():
    found, act = late([beat(41, 9.0), beat(41, 9.0, age_s=9.0), beat(42, 9.0)])
    assert found is not None
    assert found.ranks == (1,)
    assert found.silent
    assert not act


def test_a_stuck_rank_is_the_one_that_is_behind():
    found, _ = late([beat(42, 9.0), beat(41, 9.5, phase="reading"), beat(42, 9.0)])
    assert found is not None
    assert found.ranks == (1,)
    assert not found.silent


def test_when_nobody_is_behind_all_are_named():
    found, _ = late([beat(42, 9.0), beat(42, 9.0)])
    assert found is not None
    assert found.ranks == (0, 1)


def test_acting_is_due_later():
    assert late([beat(42, 59.0), beat(42, 59.0)])[1] is False
    assert late([beat(42, 61.0), beat(42, 61.0)])[1] is True
    assert late([beat(42, 61.0), beat(42, 61.0)], step_s=10.0)[1] is False
    assert late([beat(42, 101.0), beat(42, 101.0)], step_s=10.0)[1] is True
    assert late([beat(42, 13.0), beat(42, 13.0)], hang_s=12.0)[1] is True


def test_the_first_step_and_other_phases_take_long():
    assert late([beat(2, 500.0), beat(2, 500.0)], step_s=None) == (None, False)
    saving = [beat(42, 500.0, phase="saving"), beat(42, 500.0)]
    assert late(saving) == (None, False)
    loading = [beat(1, 130.0, phase="loading", age_s=130.0), beat(1, 130.0, phase="loading")]
    found, act = late(loading)
    assert found is not None
    assert found.ranks == (0,)
    assert not act


def test_what_was_last_heard_of_a_stopped_rank_may_be_past():
    """It was stopped in the second between its last heartbeat and its first step."""
    found, act = late([beat(1, 70.0, phase="loading", age_s=70.0), beat(3, 69.0)])
    assert found is not None
    assert found.ranks == (0,)
    assert act


def test_ranks_that_have_not_begun_are_waited_for():
    found = find_late({0: beat(1, 900.0)}, num_ranks=2, step_s=1.0, hang_s=None)
    assert found == (None, False)
