"""The Jobs API of a Ray cluster, by Ray's own client, with its errors put into words."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recipes.errors import ClusterError

# Models and data are read where the cluster keeps them; Ray also leaves out what .gitignore names.
_NOT_CODE = ("*.safetensors", "*.bin", "*.pt", "*.gguf", "*.parquet", "*.jsonl", "*.csv", ".git")
# Ray's client takes these for the address, whatever address it is given.
_OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def submit(
    address: str | None,
    *,
    entrypoint: str,
    job: str,
    environment: Mapping[str, str],
    code: Path | None,
) -> str:
    """Hand in a job called `job`: the address that took it, for asking later.

    Raises `ClusterError` when the cluster cannot be reached or does not take it.
    """
    runtime_env: dict[str, Any] = {"env_vars": dict(environment)}
    if code is not None:
        runtime_env |= {"working_dir": str(code), "excludes": list(_NOT_CODE)}
    with _asking(address) as client:
        client.submit_job(entrypoint=entrypoint, submission_id=job, runtime_env=runtime_env)
        return str(client.get_address())


def details(address: str, jobs: Sequence[str]) -> dict[str, Any]:
    """Ray's `JobDetails` of jobs, by their ids; those that the cluster does not know are left out.

    Several are found in the list of all, which is one question and may be long.
    """
    try:
        with _asking(address) as client:
            if len(jobs) == 1:
                return {jobs[0]: client.get_job_info(jobs[0])}
            return {one.submission_id: one for one in client.list_jobs()}
    except ClusterError as error:
        if _is_unknown(error):
            return {}
        raise


def stop(address: str, job: str) -> None:
    """Send the job's driver the signal it has asked for, and kill it when it takes too long."""
    with _asking(address) as client:
        client.stop_job(job)


def logs(address: str, job: str) -> str:
    """What the job has printed so far; nothing before it has begun."""
    try:
        with _asking(address) as client:
            return str(client.get_job_logs(job))
    except ClusterError as error:
        if _is_unknown(error):
            return ""
        raise


def _is_unknown(error: ClusterError) -> bool:
    return "status code 404" in str(error.__cause__)


@contextmanager
def _asking(address: str | None) -> Iterator[Any]:
    """A `JobSubmissionClient`; without an address the one that Ray finds by its variables."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    hidden = {name: os.environ.pop(name) for name in _OVERRIDING if address and name in os.environ}
    try:
        yield JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ClusterError(
            f"Ray's Jobs API at {address}: does not take this machine's token. Set RAY_AUTH_MODE="
            "token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's"
        ) from error
    except (RuntimeError, ValueError, OSError) as error:  # OSError: requests' and ConnectionError
        where = address or "the address that Ray finds"
        raise ClusterError(
            f"Ray's Jobs API at {where}: {_in_a_line(error)}. cluster.address is that of the "
            "cluster's dashboard, such as http://HEAD:8265"
        ) from error
    finally:
        os.environ |= hidden


def _in_a_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A traceback of the server ends with what went wrong.
    return (lines[-1] if "Traceback" in str(error) else lines[0]).rstrip(".")[:300]
