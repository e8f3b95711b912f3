"""A report as JSON and as text."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
from pathlib import Path

from rich.console import Console

from launcher.doctor.facts import Clock, Gpu, collect
from launcher.doctor.findings import Finding, error, warning
from launcher.doctor.links import Link
from launcher.doctor.report import Report, from_json, override, show, to_json
from launcher.terminal import open_display
from recipes.cluster import Cluster
from recipes.load import load
from recipes.recipe import Recipe
from recipes.slurm import Slurm
from support.jobs import recipe

ON_SLURM = recipe(cluster=Cluster(kind="slurm"), slurm=Slurm(nodes=3, exclude=["n9"]))
BAD = error("n3", "peft is 0.20.0", "Install the same peft")
HERE = collect({"storage.path": Path("/nowhere/yet")})


def report(*findings: Finding, nodes: int = 3) -> Report:
    names = [f"n{number}" for number in range(1, nodes + 1)]
    facts = [
        dataclasses.replace(
            HERE,
            node=name,
            gpus=(Gpu(name="T4", memory_bytes=2**34, driver="570", compute_capability="7.5"),),
            offered_gpus=1,
            clock=Clock(ahead_s=0.01, uncertainty_s=0.001),
        )
        for name in names
    ]
    links = [
        Link(nodes=pair, latency_s=1e-4, bytes_per_s=1e9)
        for pair in itertools.combinations(names, 2)
    ]
    return Report(nodes=tuple(facts), links=tuple(links), findings=findings)


def text_of(shown: Report, of: Recipe | None = ON_SLURM) -> str:
    stream = io.StringIO()
    display = open_display(Console(file=stream, width=100, highlight=False))
    show(shown, display, recipe=of, reference="my recipe.yaml")
    return stream.getvalue()


def test_a_report_comes_back_from_its_json_as_it_was():
    made = report(BAD, warning(None, "x", ""))
    assert from_json(to_json(made, ON_SLURM)) == made


def test_json_tells_scripts_what_to_do():
    told = json.loads(to_json(report(BAD), ON_SLURM))
    assert (told["status"], told["leave_out"]) == (1, ["n3"])
    assert told["override"] == "slurm.exclude=[n3,n9]"
    assert json.loads(to_json(report(), None))["override"] is None


def test_the_override_is_one_that_a_recipe_takes(tmp_path: Path):
    file = tmp_path / "r.yaml"
    file.write_text("base: {source: /b}\ndata: {train: /d.jsonl}\ntrain: {steps: 1}\n")
    for made, expected in ((report(BAD), ["n3", "n9"]), (report(), ["n9"])):
        assert load(str(file), [override(made, ON_SLURM)]).recipe.slurm.exclude == expected


def test_the_status():
    assert report().status == 0
    assert report(warning("n1", "x", "")).status == 0
    assert report(warning("n1", "x", ""), BAD).status == 1


def test_a_person_reads_the_finding_the_remedy_and_the_way_out():
    text = text_of(report(warning(None, "something", "do this"), BAD))
    lines = text.splitlines()
    assert lines[0].startswith("On all 3 nodes: python 3.")
    assert any(line.startswith("n2 ") and "1 T4" in line for line in lines)
    assert "n1 – n2: round trip 0.1 ms, all-reduce 1.0 GB/s" in lines
    at = lines.index("error    n3: peft is 0.20.0")
    assert lines[at + 1] == "         → Install the same peft"
    assert lines.index("warning  something") > at
    assert lines[-2] == "1 error and 1 warning on 3 nodes"
    assert lines[-1] == "Leave out: shoal submit 'my recipe.yaml' 'slurm.exclude=[n3,n9]'"


def test_what_is_good_is_told_in_a_line():
    assert text_of(report()).splitlines()[-1] == "No problems on 3 nodes"
    many = text_of(report(nodes=5))
    assert "Between 10 pairs of nodes, lowest, median and highest:" in many
    assert "  all-reduce: 1.0 GB/s, 1.0 GB/s, 1.0 GB/s" in many


def test_other_places_have_no_list_of_nodes_to_leave_out():
    assert "Leave out" not in text_of(report(BAD), recipe())
