"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recipes import errors, schema, shipped
from recipes.load import load

ROOT = Path(__file__).parent.parent
ROOMS = ("launcher", "trainer", "adapters", "recipes", "cluster")


def sources(*rooms: str) -> list[Path]:
    return [file for room in rooms for file in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("name", [*shipped.names(), "starter"])
def test_every_shipped_recipe_loads_without_a_problem(name: str):
    loaded = load(shipped.file_of(name))
    assert loaded.recipe.description


def test_every_value_of_a_recipe_is_read_somewhere():
    """A key that nothing reads would be accepted and ignored."""
    read = {
        node.attr
        for file in sources("launcher", "trainer", "adapters", "cluster")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
    }
    unread = [path for path in schema.fields() if path.rpartition(".")[2] not in read]
    assert unread == []


@pytest.mark.parametrize("room", ["launcher", "recipes", "cluster"])
def test_no_torch_at_import(room: str):
    """A login node plans, submits and looks without torch."""
    package = importlib.import_module(room)
    modules = [info.name for info in pkgutil.walk_packages(package.__path__, f"{room}.")]
    assert modules
    program = (
        f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
        "heavy = {'torch', 'deepspeed', 'transformers', 'peft'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr


def test_errors_survive_the_way_from_a_worker():
    kinds = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.ShoalError)
    ]
    assert len(kinds) >= 9
    for kind in kinds:
        error = pickle.loads(pickle.dumps(kind("runs/a: is full")))
        assert type(error) is kind
        assert str(error) == error.message == "runs/a: is full"


def test_one_call_site_of_subprocess_and_one_importer_of_omegaconf():
    def importers(package: str) -> list[str]:
        return [
            str(file.relative_to(ROOT))
            for file in sources(*ROOMS)
            if re.search(rf"^\s*(import|from) {package}\b", file.read_text(), re.MULTILINE)
        ]

    assert importers("subprocess") == ["cluster/process.py"]
    assert importers("omegaconf") == ["recipes/load.py"]


def test_files_and_functions_stay_small():
    long_files = {
        str(file.relative_to(ROOT)): lines
        for file in sources(*ROOMS)
        if (lines := len(file.read_text().splitlines())) > 400
    }
    assert long_files == {}
    long_functions = {
        f"{file.relative_to(ROOT)}:{node.name}": lines
        for file in sources(*ROOMS)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > 70
    }
    assert long_functions == {}


def test_links_in_the_docs_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    assert ROOT / "README.md" in pages
    assert ROOT / "README.zh.md" in pages
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_the_recipe_in_the_readme_is_the_shipped_one(page: str):
    shown = re.search(r"```yaml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    assert yaml.safe_load(shown[1]) == yaml.safe_load(shipped.file_of("quickstart").read_text())


def test_the_product_stands_alone():
    """Nothing names a place that only its developers have."""
    shared = re.compile(r"\.\./shared|/work/|\.library")
    texts = [*sources(*ROOMS), *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "Makefile"]
    assert [str(file) for file in texts if shared.search(file.read_text(encoding="utf-8"))] == []
