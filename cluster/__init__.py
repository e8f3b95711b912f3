"""Where things run: nodes, backends, storage, and the one call site of `subprocess`."""
