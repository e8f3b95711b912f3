"""Where what a run's processes print is kept."""

from __future__ import annotations

from pathlib import Path


def rank_log(run_dir: Path, rank: int) -> Path:
    """Where a rank's own output and that of its libraries goes."""
    return run_dir / "logs" / f"rank_{rank:03d}.log"
