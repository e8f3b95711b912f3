"""The data section: where rows come from, how they are cleaned, and what becomes of them."""

from recipes.data.section import Data
from recipes.data.source import Source
from recipes.data.steps import CleaningStep

__all__ = ["CleaningStep", "Data", "Source"]
