"""Predictions for the rows of files, in two stages on Ray Data: questions, then answers."""
