"""Runs that a scheduler starts: handed in here, driven in a job."""
