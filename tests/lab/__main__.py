"""Start a lab and give a shell on its control machine; the lab ends with the shell."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from lab.config import Hardware
from lab.lab import Lab, missing


def main() -> int:
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    parser.add_argument("--machines", type=int, default=2, help="nodes besides `control`")
    parser.add_argument("--gpus", type=int, default=0, help="false GPUs of each node")
    parser.add_argument("--keep", action="store_true", help="leave the lab's files and logs")
    parser.add_argument("command", nargs="*", help="instead of a shell")
    options = parser.parse_args()
    if why := missing():
        print(f"There can be no lab here: {why}", file=sys.stderr)
        return 1
    # A terminal that is closed should end the lab as `exit` does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    root = Path(tempfile.mkdtemp(prefix="shoal-lab-"))
    cache = os.environ.get("SHOAL_CACHE")
    lab = Lab(
        root,
        machines=options.machines,
        hardware=Hardware(gpus=options.gpus),
        shared=[Path(cache)] if cache else [],
    )
    try:
        with lab:
            if not options.command:
                names = " ".join(machine.name for machine in lab.machines)
                print(f"Nodes {names}; all machines see {lab.shared}. Try: srun -N2 hostname")
            return lab.control.interact(options.command or ["bash"])
    finally:
        if options.keep:
            print(f"The lab's files lie in {root}")
        else:
            shutil.rmtree(root)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
