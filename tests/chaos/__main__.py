"""Disturb many runs and tell what came of it."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from chaos.disturbances import KILLS, OTHERS
from chaos.stories import tell, trace_of
from chaos.workplace import make_workplace, small_disk


def main() -> int:
    """Exit status 1 when a run did not come out as the one that was left alone."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--count", type=int, default=10, help="disturbances in all")
    parser.add_argument("--each", type=int, default=5, help="disturbances of one run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stage", type=int, default=0, help="ZeRO stage")
    parser.add_argument("--steps", type=int, default=300)
    kinds = {**KILLS, **OTHERS}
    parser.add_argument(
        "--kinds", nargs="+", choices=list(kinds), default=list(KILLS), help="what may happen"
    )
    parser.add_argument("--folder", type=Path, help="keep the runs here")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    make_workplace(folder, steps=options.steps, stage=options.stage)
    with small_disk(folder / "runs") if "full disk" in options.kinds else nullcontext():
        return _disturb(folder, options)


def _disturb(folder: Path, options: argparse.Namespace) -> int:
    kinds = {**KILLS, **OTHERS}
    begin = time.monotonic()
    untouched = trace_of(tell(folder, "untouched", [], random.Random(0)).run)
    print(f"untouched: {len(untouched.losses)} steps; runs are kept in {folder}", flush=True)
    happened = resumes = wrong = number = 0
    while happened < options.count:
        number += 1
        luck = random.Random(options.seed * 1_000_003 + number)
        chosen = luck.choices(options.kinds, k=min(options.each, options.count - happened))
        name = f"run{number:03d}"
        try:
            story = tell(folder, name, [(kind, kinds[kind]) for kind in chosen], luck)
        except (AssertionError, TimeoutError) as error:
            print(f"{name}: DID NOT END: {error}", flush=True)
            return 1
        same = trace_of(story.run) == untouched
        wrong += not same
        happened += len(story.happened)
        resumes += story.resumes
        print(
            f"{name}: {'equal' if same else 'DIFFERS'}, {story.seconds:.0f} s, "
            f"{story.resumes} resumed by hand",
            *story.happened,
            sep="\n  ",
            flush=True,
        )
    print(
        f"{happened} disturbances of {number} runs, {resumes} resumed by hand, {wrong} differ "
        f"from the untouched run; {time.monotonic() - begin:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
