"""Speed and size, as ratios of two things run in turn on the same machine with the same batches."""
