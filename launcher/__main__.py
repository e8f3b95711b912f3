"""`python -m launcher`: shoal, by the Python that has it."""

import sys

from launcher.cli import main

if __name__ == "__main__":
    sys.argv[0] = "shoal"  # what a person is told to type next
    main()
