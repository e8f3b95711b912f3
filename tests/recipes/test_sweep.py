"""A sweep's combinations: their values, names and problems."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.errors import RecipeError
from recipes.sweep import members

RECIPE = """
base: {source: org/model}
data: {train: sample:movie_reviews}
train: {steps: 10}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return str(path)


def test_every_value_meets_every_other(file: str):
    found = members(file, ["seed=3"], ["adapter.r=4,8", "train.learning_rate=1e-4, 2e-4"])
    values = [(m.loaded.recipe.adapter.r, m.loaded.recipe.train.learning_rate) for m in found]
    assert values == [(4, 1e-4), (4, 2e-4), (8, 1e-4), (8, 2e-4)]
    assert {m.loaded.recipe.seed for m in found} == {3}
    assert {m.sweep for m in found} == {"tiny"}
    assert [m.loaded.recipe.name for m in found] == [
        "tiny_r=4_learning_rate=1e-4",
        "tiny_r=4_learning_rate=2e-4",
        "tiny_r=8_learning_rate=1e-4",
        "tiny_r=8_learning_rate=2e-4",
    ]
    assert found[1].changes == {"adapter.r": "4", "train.learning_rate": "2e-4"}
    origins = found[0].loaded.origins
    assert [origins[key] for key in ("name", "adapter.r", "train.steps")] == [
        "command line",
        "command line",
        "recipe",
    ]


def test_lists_and_texts_are_values(file: str):
    found = members(file, [], ["adapter.targets=[a,b],[c],d"])
    assert [m.loaded.recipe.adapter.targets for m in found] == [["a", "b"], ["c"], ["d"]]
    found = members(file, [], ["""data.system="Yes, or 'no'",Don't,null"""])
    assert [m.loaded.recipe.data.system for m in found] == ["Yes, or 'no'", "Don't", None]
    names = [m.loaded.recipe.name for m in found]
    assert names == ["tiny_system=Yes_or_no", "tiny_system=Don_t", "tiny_system=null"]


def test_names_stay_short_and_apart(file: str):
    long = [f"{'very ' * 30}{which}" for which in ("long", "wide")]
    found = members(file, [], [f"data.system={','.join(long)}"])
    names = {m.loaded.recipe.name for m in found}
    assert len(names) == 2
    assert all(len(name) < 60 for name in names)


@pytest.mark.parametrize(
    ("overrides", "sweeps", "told"),
    [
        ([], ["adapter.r"], "--sweep adapter.r: names no values"),
        ([], ["adapter.rank=1,2"], "--sweep adapter.rank: is no key of adapter"),
        ([], ["adapter.r=1,,2"], "--sweep adapter.r: has an empty value"),
        ([], ["adapter.r=1,2,1"], "--sweep adapter.r: has the value 1 twice"),
        ([], ["adapter.targets=[a,b"], "a ] is missing at the end"),
        ([], ["seed=1", "seed=2"], "--sweep seed: is given by another --sweep too"),
        (["seed=1"], ["seed=1,2"], "--sweep seed: is given by an override too"),
        ([], ["name=a,b"], "each run of a sweep gets a name of its own"),
    ],
)
def test_what_is_no_sweep(file: str, overrides: list[str], sweeps: list[str], told: str):
    with pytest.raises(RecipeError) as caught:
        members(file, overrides, sweeps)
    assert told in str(caught.value)


def test_every_problem_is_told_once_with_those_it_belongs_to(file: str):
    with pytest.raises(RecipeError) as caught:
        members(file, [], ["adapter.r=4,0", "seed=1,-1"])
    assert str(caught.value).splitlines() == [
        "--sweep: 3 of 4 combinations have problems",
        "adapter.r=4, seed=-1:",
        f"  {file}: 1 problem",
        "    seed = -1: is negative; allowed: ≥ 0",
        "adapter.r=0, seed=1:",
        f"  {file}: 1 problem",
        "    adapter.r = 0: is no rank; allowed: ≥ 1",
        "adapter.r=0, seed=-1:",
        f"  {file}: 2 problems",
        "    adapter.r = 0: is no rank; allowed: ≥ 1",
        "    seed = -1: is negative; allowed: ≥ 0",
    ]
    with pytest.raises(RecipeError) as caught:
        members(file, ["train.steps=0"], ["adapter.r=4,8"])
    assert "\nall of them:\n" in str(caught.value)
    assert str(caught.value).count("train.steps") == 1
