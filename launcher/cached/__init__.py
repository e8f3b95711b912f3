"""What lies in the cache, and removing it."""
