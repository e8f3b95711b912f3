"""From source files to shards with Ray Data: read, clean, select, render, tokenise, pack."""

from launcher.prepare.found import Prepared, find_prepared
from launcher.prepare.pipeline import prepare
from launcher.prepare.sources import find_sources

__all__ = ["Prepared", "find_prepared", "find_sources", "prepare"]
