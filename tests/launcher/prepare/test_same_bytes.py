"""Prepared data is the same bytes whoever makes it, on how many CPUs and nodes, and however often
it was begun."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from launcher.prepare.found import Prepared
from launcher.prepare.key import PREPARE_VERSION
from launcher.prepare.pipeline import prepare
from recipes.base import Base
from recipes.data import Data, Source
from recipes.recipe import Recipe
from recipes.train import Train
from support.prepared import silent
from trainer.split import open_split

FILES = 9


def recipe(folder: Path) -> Recipe:
    return Recipe(
        name="r",
        base=Base(source="b"),
        data=Data(
            train=[Source(path=str(folder))],
            held_out_fraction=0.1,
            deduplicate="near",
            sequence_length=64,
            packing=True,
        ),
        train=Train(steps=1),
    )


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of several units, with equal rows, near ones and broken ones across them."""
    folder = tmp_path_factory.mktemp("rows")
    for number in range(FILES):
        lines: list[Any] = []
        for row in range(60):
            words = [f"w{(number * 7 + row * place) % 100}" for place in range(1, 12 + row % 9)]
            lines.append({"text": " ".join(words)})
            if row % 10 == 0:
                lines += [lines[-1], {"text": " ".join([*words[:-1], "w99"])}]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{number}.jsonl").write_text(text + "{broken\n")
    return folder


def run(chosen: Recipe, llama: Path, cache: Path) -> Prepared:
    return prepare(chosen, base_folder=llama, cache=cache, progress=silent)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def made(
    local_ray: None, rows: Path, llama: Path, tmp_path_factory: pytest.TempPathFactory
) -> Prepared:
    """Made in one go on two CPUs."""
    prepared = run(recipe(rows), llama, tmp_path_factory.mktemp("reference"))
    manifest = prepared.manifest
    assert manifest["rejected"]["near duplicate"] > 10
    assert manifest["rejected"]["duplicate"] == FILES * 6
    assert manifest["failed"] == {"not JSON": FILES}
    assert len(manifest["units"]) == FILES
    return prepared


@pytest.fixture(scope="module")
def reference(made: Prepared) -> dict[str, str]:
    return digests(made.folder)


def test_other_tokens_are_another_version(made: Prepared):
    """Data that was prepared before would be taken for what this code makes. So with other tokens,
    raise PREPARE_VERSION, and note here what comes of it."""
    content = hashlib.sha256()
    for name in ("train", "held_out"):
        split = open_split(made.folder, name)
        for index in range(len(split)):
            row = split[index]
            for part in (row.input_ids, row.labels, row.lengths, row.samples):
                content.update(part.tobytes())
    assert (PREPARE_VERSION, content.hexdigest()[:16]) == (7, "5075fb33b1710e63")


DRIVER = """
    import os, signal, sys
    from pathlib import Path
    import ray
    sys.path[:0] = sys.argv[1].split(os.pathsep)
    from launcher.prepare.pipeline import prepare
    import test_same_bytes as here

    address, llama, rows, cache, phase, done = sys.argv[2:]

    def told(name, so_far, total, *, rows=None):
        if name == phase and so_far == int(done):
            os.kill(os.getpid(), signal.SIGKILL)

    ray.init(address=address, log_to_driver=False)
    recipe = here.recipe(Path(rows))
    prepare(recipe, base_folder=Path(llama), cache=Path(cache), progress=told)
"""


def killed_at(phase: str, done: int, llama: Path, rows: Path, cache: Path) -> Path:
    """The folder that a process leaves which is killed in the middle of a phase."""
    import ray

    address = ray.get_runtime_context().gcs_address
    paths = ":".join([str(Path(__file__).parent), *sys.path])
    words = [paths, address, str(llama), str(rows), str(cache), phase, str(done)]
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DRIVER), *words],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    [folder] = (cache / "preparing").iterdir()
    return folder


def test_killed_in_the_middle_it_goes_on(
    reference: dict[str, str], rows: Path, llama: Path, tmp_path: Path
):
    """What was finished is kept, what is torn is done again."""
    left = killed_at("tokenizing", 4, llama, rows, tmp_path)
    finished = sorted((left / "work" / "tokens").glob("*.json"))
    assert len(finished) >= 4
    torn = json.loads(finished[0].read_text())["files"]
    (left / next(name for name in torn if "train" in name)).write_bytes(b"torn")
    (left / "work" / "clean" / "00003.json").write_text("{")
    kept = [left / "rejected" / f"{file.stem}.jsonl" for file in finished[1:]]
    inodes = {file.name: file.stat().st_ino for file in kept}
    prepared = run(recipe(rows), llama, tmp_path)
    assert prepared.fresh
    assert digests(prepared.folder) == reference
    now = {name: (prepared.folder / "rejected" / name).stat().st_ino for name in inodes}
    assert now == inodes
    assert not list((tmp_path / "preparing").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["cleaning", "finding near duplicates", "writing train shards"])
def test_killed_in_other_phases(
    reference: dict[str, str], rows: Path, llama: Path, tmp_path: Path, phase: str
):
    killed_at(phase, 1, llama, rows, tmp_path)
    assert digests(run(recipe(rows), llama, tmp_path).folder) == reference


def test_one_cpu_makes_the_same(reference: dict[str, str], rows: Path, llama: Path, tmp_path: Path):
    import ray.data

    context = ray.data.DataContext.get_current()
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.for_limits(cpu=1)
    try:
        assert digests(run(recipe(rows), llama, tmp_path).folder) == reference
    finally:
        context.execution_options.resource_limits = limits


def test_a_packed_file_is_shared_by_as_many_tasks(
    local_ray: None, rows: Path, llama: Path, tmp_path: Path
):
    lines = b"".join(file.read_bytes() for file in sorted(rows.iterdir()))
    content = b"".join(
        line.replace(b"w", b"w%d_" % copy)
        for copy in range(16)
        for line in lines.splitlines(keepends=True)
    )
    assert 2**20 < len(content) < 2 * 2**20
    packed = {".gz": gzip.compress, ".zst": lambda plain: pa.compress(plain, "zstd", asbytes=True)}
    made = {}
    for end, pack in {"": bytes, **packed}.items():
        folder = tmp_path / f"rows{end}"
        folder.mkdir()
        (folder / f"rows.jsonl{end}").write_bytes(pack(content))
        prepared = run(recipe(folder), llama, tmp_path)
        assert len(prepared.manifest["units"]) == 2
        made[end] = {
            name: re.sub(rb'"file": "[^"]*"', b"", (prepared.folder / name).read_bytes())
            for name in digests(prepared.folder)
            if not name.startswith("manifest")
        }
    assert made[""] == made[".gz"] == made[".zst"]


NODES = """
    import os, sys
    from pathlib import Path
    import ray
    from ray.cluster_utils import Cluster
    sys.path[:0] = sys.argv[1].split(os.pathsep)
    from launcher.prepare.pipeline import prepare
    import test_same_bytes as here

    llama, rows, cache = map(Path, sys.argv[2:])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False)
    assert ray.cluster_resources()["CPU"] == 4
    prepare(here.recipe(rows), base_folder=llama, cache=cache, progress=here.silent)
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.slow
def test_two_nodes_of_two_cpus_make_the_same(
    reference: dict[str, str], rows: Path, llama: Path, tmp_path: Path
):
    paths = ":".join([str(Path(__file__).parent), *sys.path])
    words = [paths, str(llama), str(rows), str(tmp_path)]
    subprocess.run([sys.executable, "-c", textwrap.dedent(NODES), *words], check=True, timeout=900)
    [folder] = (tmp_path / "prepared").iterdir()
    assert digests(folder) == reference
