"""The rows of one unit, and those that are none."""

from launcher.prepare.reading.reading import Rows, read
from launcher.prepare.reading.row import RawRow

__all__ = ["RawRow", "Rows", "read"]
