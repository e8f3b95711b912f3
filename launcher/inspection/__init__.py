"""Prepared data as a person looks at it: figures, and samples as the model sees them."""
