"""Addresses of object storage: `s3://bucket/prefix`."""

from __future__ import annotations

import re
from pathlib import Path

_SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def is_address(text: str) -> bool:
    """Whether something is kept elsewhere than in a folder."""
    return "://" in text


def what_is_wrong(address: str) -> str | None:
    """Why an address cannot be used, with the fix, or None."""
    if not address.startswith(_SCHEME):
        return (
            "only folders and s3://bucket/prefix can be used. Servers that speak S3 are named by "
            "AWS_ENDPOINT_URL"
        )
    bucket, *parts = address.removeprefix(_SCHEME).rstrip("/").split("/")
    if not _BUCKET.fullmatch(bucket):
        return f"'{bucket}' is no name of a bucket. Write s3://bucket/prefix"
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty part, or one of dots. Write s3://bucket/prefix"
    return None


def join(address: str, name: str) -> str:
    """The address of something below another."""
    return f"{address.rstrip('/')}/{name}"


def parent(address: str) -> str:
    """The address above; of a bucket alone, itself."""
    bucket, *parts = in_bucket(address).split("/")
    return "/".join([_SCHEME + bucket, *parts[:-1]])


def last_name(address: str) -> str:
    """The last part of an address: of a run's, its name."""
    return address.rstrip("/").rpartition("/")[2]


def in_bucket(address: str) -> str:
    """`bucket/prefix`."""
    return address.removeprefix(_SCHEME).rstrip("/")


def working_folder(cache: Path, address: str) -> Path:
    """Where a run that is kept at an address is worked on."""
    return cache / "runs" / in_bucket(address)
