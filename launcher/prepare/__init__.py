"""From source files to shards with Ray Data: read, clean, select, render, tokenise, pack."""

from launcher.prepare.pipeline import Prepared, prepare
from launcher.prepare.sources import find_sources

__all__ = ["Prepared", "find_sources", "prepare"]
