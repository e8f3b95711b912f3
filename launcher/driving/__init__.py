"""A run under way: its attempts with Ray Train, who is late, what failed, what is done about it."""
