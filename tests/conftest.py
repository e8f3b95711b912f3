from __future__ import annotations

import logging
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.config import Hardware
from lab.lab import Lab, missing
from support.commands import Here, give

# No test reaches for a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A shell starts what ends in `&` without Ctrl-C, and what it starts hands that on: programs that
# tests interrupt would not hear of it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _gpu_or_skip(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray with two CPUs for all tests of the session."""
    from cluster.ray_cluster import connected
    from recipes.cluster import Cluster

    with connected(Cluster(), num_cpus=2):
        yield


@pytest.fixture
def here(workplace: Path, local_ray: None, capfd: pytest.CaptureFixture[str]) -> Here:
    """A command in this process and with its Ray, given in the module's own `workplace`: to start
    them takes longer than most runs."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        status = give(workplace, *arguments)
        printed = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, status, printed.out, printed.err)

    return call


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with its tokenizer, which knows chats."""
    from support import tiny

    return tiny.make_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A server that speaks S3, on the loopback: its URL. Nothing of it is left behind."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a new empty bucket; the environment leads to it."""
    from pyarrow.fs import S3FileSystem

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    environment = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "access-key-of-a-test",
        "AWS_SECRET_ACCESS_KEY": "secret-key-of-a-test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    files = S3FileSystem(
        endpoint_override=s3_server.removeprefix("http://"),
        scheme="http",
        region="us-east-1",
        allow_bucket_creation=True,
    )
    files.create_dir(name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def started_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One lab for all tests of the session. SHOAL_LAB=required: where there is none, tests fail."""
    if why := missing():
        if os.environ.get("SHOAL_LAB") == "required":
            pytest.fail(f"SHOAL_LAB=required, and there can be no lab: {why}")
        pytest.skip(f"there can be no lab: {why}")
    shared = [tmp_path_factory.getbasetemp()]
    if cache := os.environ.get("SHOAL_CACHE"):
        shared.append(Path(cache))
    hardware = Hardware(gpus=2)
    with Lab(tmp_path_factory.mktemp("lab"), machines=3, hardware=hardware, shared=shared) as lab:
        yield lab


@pytest.fixture
def lab(started_lab: Lab) -> Iterator[Lab]:
    """Three machines and `control`, with SLURM; nothing runs on them. Seen there: /tmp/pytest-…"""
    yield started_lab
    started_lab.settle()
