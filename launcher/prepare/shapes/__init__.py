"""From the columns of a row to a sample, whatever shape the row has."""

from launcher.prepare.shapes.guess import Guess, guess
from launcher.prepare.shapes.making import to_asked, to_sample
from launcher.prepare.shapes.sample import Message, Sample

__all__ = ["Guess", "Message", "Sample", "guess", "to_asked", "to_sample"]
