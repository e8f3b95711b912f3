"""From source files to shards with Ray Data: read, clean, select, render, tokenise, pack."""

from launcher.prepare.pipeline import Prepared, prepare

__all__ = ["Prepared", "prepare"]
