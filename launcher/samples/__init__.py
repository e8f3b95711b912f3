"""Small real models and data sets, made from pinned packages of the Python package index."""
