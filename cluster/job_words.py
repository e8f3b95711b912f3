"""What a job's script and the run inside it say to each other: files in the run's folder, words in
them, and exit statuses."""

STOP_FILE = ".stop"
"""Holds what is asked of the run: one of the two words."""

PREEMPTED, BY_PERSON = "preempted", "interrupted"

STATUS_FILE = ".status"
"""Holds the run's exit status, once it has ended."""

EXCLUDE_FILE = ".exclude"
"""Holds the nodes that the job is not to get again, if any, as the scheduler writes them."""

ASK_AGAIN = 75
"""Exit status of a run that was stopped from outside and should be resumed (sysexits' TEMPFAIL)."""

INTERRUPTED = 130
"""Exit status of a run that a person interrupted."""
