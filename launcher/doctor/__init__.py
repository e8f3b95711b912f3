"""`shoal doctor`: whether the nodes of a place are fit for a run, before it is paid for."""
