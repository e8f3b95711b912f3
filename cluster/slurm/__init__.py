"""SLURM: runs handed in as jobs, and a Ray cluster of its own inside each."""
