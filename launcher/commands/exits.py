"""How a command ends: every error one clear text, and an exit status that scripts can act on."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from cluster.job_words import ASK_AGAIN, INTERRUPTED
from launcher.inspection.readable import visible
from launcher.signals import Preempted
from recipes.errors import NodesLostError, RecipeError, ShoalError

if TYPE_CHECKING:
    from launcher.session import Outcome


def exit_as(outcome: Outcome) -> None:
    """The exit status tells whether, and by whom, a run was stopped before its end."""
    if outcome.stopped is not None:
        raise typer.Exit(INTERRUPTED if outcome.stopped == "interrupted" else ASK_AGAIN)


@contextmanager
def interruptible(
    kept: str = "what was saved before stays", go_on: str = "go on with `shoal resume`"
) -> Iterator[None]:
    """An interruption is told in one line, with what is left and how to go on."""
    try:
        yield
    except Preempted:
        typer.echo(
            f"shoal: the machine is wanted back: {kept}; {go_on}",
            err=True,
        )
        raise typer.Exit(ASK_AGAIN) from None
    except KeyboardInterrupt:
        typer.echo(f"shoal: interrupted; {kept}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def status_of(action: Callable[[], None]) -> int:
    """The exit status of what a command does, with its error shown: 2 is a wrong recipe or command
    line, 130 a person's interruption, 75 a scheduler's or lost nodes (resume it), 1 all else."""
    try:
        action()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except typer.Exit as end:
        return end.exit_code
    except RecipeError as error:
        return _fail(error, status=2)
    except NodesLostError as error:
        return _fail(error, status=ASK_AGAIN)
    except ShoalError as error:
        return _fail(error, status=1)
    return 0


def _fail(error: ShoalError, status: int) -> int:
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    # It may quote a row, with characters that a terminal would obey.
    typer.echo(f"shoal: error: {visible(str(error))}", err=True)
    return status
