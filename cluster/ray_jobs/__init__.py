"""Ray's Jobs API: runs handed in to a Ray cluster, which drives them from one of its nodes."""
