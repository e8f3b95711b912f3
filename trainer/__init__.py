"""One rank of a run: reading shards in the global order, model and engine, the loop, evaluation."""
