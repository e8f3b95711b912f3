"""Reading recipes: every problem at once, and where each value came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes import resolved, schema, shipped
from recipes.adapter import Ia3, Oft
from recipes.data import Source
from recipes.errors import RecipeError
from recipes.load import load, load_text

MINIMAL = """
base: {source: org/model}
data: {train: rows.jsonl}
train: {steps: 5}
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(MINIMAL)
    return file


def problems_of(file: Path | str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(file, overrides)
    head, *lines = str(caught.value).split("\n")
    assert head.endswith(f"{len(lines)} problem{'s' if len(lines) > 1 else ''}")
    return [line.strip() for line in lines]


def test_a_minimal_recipe_takes_defaults_and_its_file_name(recipe_file: Path):
    loaded = load(recipe_file)
    assert loaded.recipe.name == "mine"
    assert loaded.recipe.base.source == "org/model"
    assert loaded.recipe.adapter.targets == ["all-linear"]
    assert loaded.origins["train.steps"] == "recipe"
    assert loaded.origins["adapter.r"] == "default"


def test_overrides_come_last_and_may_hold_equals_signs(recipe_file: Path):
    loaded = load(
        recipe_file,
        ["train.steps=7", "data.system=answer a=b", "data.train=[a.jsonl, b.jsonl]", "seed=3"],
    )
    assert loaded.recipe.train.steps == 7
    assert loaded.recipe.data.system == "answer a=b"
    assert [Path(source.path).name for source in loaded.recipe.data.train] == ["a.jsonl", "b.jsonl"]
    assert loaded.origins["train.steps"] == "command line"


def test_lists_replace_and_one_value_is_a_list_of_one(recipe_file: Path):
    loaded = load(recipe_file, ["adapter.targets=q_proj", "train.betas=[0.8, 0.9]"])
    assert loaded.recipe.adapter.targets == ["q_proj"]
    assert loaded.recipe.train.betas == [0.8, 0.9]


def test_a_key_belongs_to_kinds(recipe_file: Path):
    loaded = load(recipe_file, ["adapter.kind=oft", "adapter.block_size=8"])
    assert isinstance(loaded.recipe.adapter, Oft)
    assert loaded.recipe.adapter.block_size == 8
    assert problems_of(recipe_file, "adapter.kind=ia3", "adapter.r=4", "adapter.block_size=8") == [
        "adapter.block_size = 8: is no key of adapter.kind = ia3. Leave it out "
        "(adapter.block_size=null takes it back), or set adapter.kind to oft or boft",
        "adapter.r = 4: is no key of adapter.kind = ia3. Leave it out (adapter.r=null takes it "
        "back), or set adapter.kind to lora, adalora, loha, lokr or vera",
    ]
    recipe_file.write_text(MINIMAL + "adapter: {r: 4}\n")
    assert load(recipe_file, ["adapter.kind=ia3", "adapter.r=null"]).recipe.adapter == Ia3()


@pytest.mark.parametrize("kind", schema.kinds("adapter"))
def test_every_kind_has_defaults_and_survives_the_resolved_recipe(recipe_file: Path, kind: str):
    method = ["adapter.method=HRA"] if kind == "peft" else []
    loaded = load(recipe_file, [f"adapter.kind={kind}", *method])
    again = load_text(resolved.to_yaml(loaded).encode())
    assert again.recipe.adapter == loaded.recipe.adapter
    assert resolved.digest(again.recipe) == resolved.digest(loaded.recipe)


def test_all_problems_are_told_at_once(recipe_file: Path):
    found = problems_of(
        recipe_file,
        "trian.steps=5",
        "train.stps=3",
        "train.steps=many",
        "data.packing=maybe",
        "zero.stage=7",
        "base=3",
        "learning_rate=3",
        "adapter.kind=lara",
        "data.clean=[strip_htm]",
        "train.betas=0.9",
    )
    assert found == [
        "trian.steps: there is no section trian. Did you mean 'train'?",
        "train.stps: is no key of train. Did you mean 'steps'?",
        "base = 3: is a section, not a value",
        "learning_rate: is no key of a recipe. Did you mean 'train.learning_rate'?",
        "data.clean[0] = 'strip_htm': is no step. Did you mean 'strip_html'?",
        "data.packing = 'maybe': has a wrong type; allowed: true or false",
        "adapter.kind = 'lara': is no kind; allowed: one of lora, adalora, loha, lokr, ia3, "
        "oft, boft, vera, ln_tuning, unfreeze, full, prompt_tuning, p_tuning, prefix_tuning, peft. "
        "Did you mean 'lora'?",
        "train.steps = 'many': has a wrong type; allowed: a whole number or null",
        "train.betas = [0.9]: AdamW has two; allowed: two numbers, 0 ≤ value < 1",
        "zero.stage = 7: is no ZeRO stage; allowed: 0, 1, 2, 3",
    ]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs=2", "train.steps: both are given"),
        ("train.steps=null", "train.steps: neither is given"),
        ("train.micro_batch_size=5", "does not divide train.global_batch_size = 16; allowed: 1, 2"),
        ("train.warmup_steps=9", "is more than train.steps = 5"),
        ("train.learning_rate=0", "is too small; allowed: > 0"),
        ("train.learning_rate=null", "train.learning_rate: must not be null"),
        ("data.held_out_fraction=1.5", "is not a share; allowed: 0 ≤ value < 1"),
        ("data.clean=[{characters: {max: 0}}]", "data.clean[0].max = 0: is below min = 1"),
        ("data.train=[]", "names no file"),
        ("adapter.targets=[all-linear, q_proj]", "all-linear stands alone"),
        ("adapter.dropout=1", "is not a share"),
        ("evaluate.choices=[yes]", "leaves nothing to choose"),
        ("evaluate.choices=[good, bad]", "there are no held-out rows to measure on"),
        ("cluster.workers=0", "is no number of workers; allowed: a number ≥ 1"),
        ("cluster.workers=[3,2]", "[3, 2]: is no number of workers"),
        ("checkpoint.keep=0", "is too small; allowed: ≥ 1"),
        ("storage.path=gs://bucket/runs", "only folders and s3://bucket/prefix can be used"),
        ("storage.path=s3://Bucket!/runs", "'Bucket!' is no name of a bucket"),
        ("storage.path=s3://bucket/../runs", "has an empty part, or one of dots"),
        ("storage.cache=s3://bucket/cache", "can only be a folder"),
        ("name=a/b", "is no name for a folder"),
        ("data.labels=[a, b]", "a causal model has no labels"),
        ("base.source=' '", "is empty"),
    ],
)
def test_rules(recipe_file: Path, override: str, said: str):
    assert any(said in line for line in problems_of(recipe_file, override))


def test_rules_between_sections_of_a_classification(recipe_file: Path):
    found = problems_of(
        recipe_file,
        "task=sequence_classification",
        "data.packing=true",
        "data.format=messages",
        "data.system=hello",
    )
    assert {line.split(" ")[0] for line in found} == {"data.format", "data.packing", "data.system"}


def test_the_best_is_told_by_a_score_that_is_measured(recipe_file: Path):
    kept = ["data.held_out_fraction=0.1", "evaluate.every_steps=5", "checkpoint.keep_best=1"]
    assert problems_of(recipe_file, *kept, "checkpoint.best_by=accuracy") == [
        "checkpoint.best_by = 'accuracy': of texts and chats nothing but the loss is measured; "
        "allowed: loss. Answers to choose from get an accuracy: name them in evaluate.choices"
    ]
    load(recipe_file, [*kept, "checkpoint.best_by=accuracy", "evaluate.choices=[a, b]"])
    load(recipe_file, ["checkpoint.best_by=accuracy"])  # nothing is kept by it


def test_a_name_that_is_like_none_is_told_those_there_are(recipe_file: Path):
    """Rather than one that has some letters in common."""
    found = problems_of(recipe_file, "adapter.rank=8", "model=org/m", "base_model=org/m")
    assert found[0].startswith("adapter.rank: is no key of adapter. Known: kind, targets, ")
    for problem, name in zip(found[1:], ("model", "base_model"), strict=True):
        assert problem.startswith(f"{name}: is no key of a recipe. Known: base, data, ")


def test_what_is_required_is_named_with_its_meaning(tmp_path: Path):
    file = tmp_path / "empty.yaml"
    file.write_text("")
    found = problems_of(file)
    assert found[0].startswith("base.source: must be given; allowed: a text. Folder of a model")
    assert found[1].startswith(
        "data.train: must be given; allowed: a list, each a path, or a mapping with path."
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "holds a list, not sections with keys"),
        ("base: {source: [", "is not YAML"),
        ("seed: 1\nseed: 2\n", "is not YAML: .*duplicate key"),
        ("base: {source: '$" + "{nowhere}'}", "Interpolation key 'nowhere' not found"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str, said: str):
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=said):
        load(file)


@pytest.mark.parametrize("override", ["train.steps", "=5", "--lr=1"])
def test_what_is_no_override(recipe_file: Path, override: str):
    with pytest.raises(RecipeError):
        load(recipe_file, [override])


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="Did you mean 'quickstart'"):
        load("quikstart")


def test_relative_paths_start_at_the_recipe_or_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, elsewhere = tmp_path / "recipes", tmp_path / "elsewhere"
    (folder / "org" / "local").mkdir(parents=True)
    elsewhere.mkdir()
    file = folder / "mine.yaml"
    file.write_text(
        "base: {source: org/local}\n"
        "data: {train: [../rows.jsonl, sample:movies/a.jsonl]}\n"
        "train: {steps: 1}\n"
    )
    monkeypatch.chdir(elsewhere)
    recipe = load(file, ["data.held_out=test.jsonl"]).recipe
    assert recipe.base.source == str(folder / "org" / "local")
    assert [source.path for source in recipe.data.train] == [
        str(tmp_path / "rows.jsonl"),
        "sample:movies/a.jsonl",
    ]
    assert recipe.data.held_out == [Source(path=str(elsewhere / "test.jsonl"))]
    assert recipe.storage.path == str(elsewhere / "runs")


def test_interpolation(recipe_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHOAL_TEST_ROWS", "/data/rows.jsonl")
    recipe = load(
        recipe_file,
        ["train.warmup_steps=${train.steps}", "data.train=${oc.env:SHOAL_TEST_ROWS}"],
    ).recipe
    assert recipe.train.warmup_steps == 5
    assert recipe.data.train == [Source(path="/data/rows.jsonl")]


@pytest.mark.parametrize("name", [*shipped.names(), "starter"])
def test_the_resolved_recipe_loads_to_the_same(name: str, tmp_path: Path):
    loaded = load(shipped.file_of(name))
    text = resolved.to_yaml(loaded)
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    again = load(file)
    assert again.recipe == loaded.recipe
    assert resolved.digest(again.recipe) == resolved.digest(loaded.recipe)
    assert 'source: "sample:' in text
    assert "# recipe" in text
    assert "# default" in text


def test_odd_text_survives_the_resolved_recipe(recipe_file: Path, tmp_path: Path):
    loaded = load(recipe_file, ["description='a: # \\ | {z} 人工'"])
    file = tmp_path / "again.yaml"
    file.write_text(resolved.to_yaml(loaded))
    assert load(file).recipe.description == loaded.recipe.description == "a: # \\ | {z} 人工"


def test_the_digest_leaves_out_where_it_runs(recipe_file: Path):
    plain = resolved.digest(load(recipe_file).recipe)
    assert plain == resolved.digest(load(recipe_file, ["cluster.workers=4", "zero.stage=3"]).recipe)
    assert plain != resolved.digest(load(recipe_file, ["seed=1"]).recipe)
    changed = resolved.differences(load(recipe_file).recipe, load(recipe_file, ["seed=1"]).recipe)
    assert changed == {"seed": (0, 1)}


def test_every_field_has_one_line_of_docs():
    for path, field in schema.fields().items():
        assert field.doc, path
        assert "\n" not in field.doc, path
        assert field.doc.endswith("."), path
