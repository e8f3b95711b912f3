"""`python -m launcher`: shoal, by the Python that has it."""

import sys

from launcher.cli import main

sys.argv[0] = "shoal"  # what a person is told to type next
main()
