"""What a machine needs of the kernel and Python 3.11 does not offer: mounts and a cgroup view."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_BIND = 0x1000
_RECURSIVE = 0x4000
_NEW_CGROUP_NAMESPACE = 0x02000000

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str | Path, kind: str, options: str) -> None:
    """Mount a file system of this kind. Raises `OSError`."""
    arguments = (source.encode(), str(target).encode(), kind.encode(), 0, options.encode())
    _checked(_libc.mount(*arguments), target)


def bind(source: int | str | Path, target: str | Path) -> None:
    """Let `target` show what `source` is; a file descriptor names what can be seen no more."""
    where = f"/proc/self/fd/{source}" if isinstance(source, int) else str(source)
    flags = _BIND | _RECURSIVE
    _checked(_libc.mount(where.encode(), str(target).encode(), None, flags, None), target)


def see_own_cgroup_as_root() -> None:
    """From here on, cgroups above this process's own do not exist for it."""
    _checked(_libc.unshare(_NEW_CGROUP_NAMESPACE), "cgroup namespace")


def _checked(status: int, what: str | Path) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(what))
