"""A step of the user's own: `step(text: str, **options) -> str | None`; None drops the row.

The function is called for every text, in many processes, in no order, and perhaps twice for the
same text when preparing was interrupted. It must depend on nothing but what it is given.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from launcher.prepare.unusable import Dropped, Unusable
from recipes.data import steps
from recipes.errors import DataError


def call(step: steps.Call) -> Callable[[str], str]:
    """Raises `DataError` when there is no such function, or it does not take the options."""
    function = find_function(step.function)
    _check_options(function, step)
    name = short_name(step)

    def checked(text: str) -> str:
        try:
            result = function(text, **step.options)
        # The user's code is a border: whatever it raises is about this row, and is kept with it;
        # sys.exit would end the process.
        except (Exception, SystemExit) as error:
            raise Unusable(f"{name}: failed", f"{type(error).__name__}: {error}") from error
        if result is None:
            raise Dropped(f"{name}: dropped")
        if not isinstance(result, str):
            raise Unusable(f"{name}: returned no text", type(result).__name__)
        return result

    return checked


def short_name(step: steps.Call) -> str:
    """What the step is counted under: its function, without folders."""
    module, _, function = step.function.rpartition(":")
    return f"call {Path(module).name}:{function}"


def find_function(reference: str) -> Callable[..., Any]:
    """The function that `file.py:name` or `module:name` says. Raises `DataError`."""
    place, _, name = reference.rpartition(":")
    module = _from_file(place) if place.endswith(".py") else _from_name(place)
    function = getattr(module, name, None)
    if not callable(function):
        known = [
            key
            for key, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__
        ]
        raise DataError(
            f"data.clean: {place} has no function {name}. Its functions: "
            f"{', '.join(known) or 'none'}"
        )
    return function  # type: ignore[no-any-return]


def source_of(reference: str) -> Path:
    """The file that holds the function. Raises `DataError`."""
    place, _, _ = reference.rpartition(":")
    if place.endswith(".py"):
        return Path(place)
    file = getattr(_from_name(place), "__file__", None)
    if file is None:
        raise DataError(f"data.clean: {place} is no module with a file of its own")
    return Path(file)


@cache
def _from_file(file: str) -> ModuleType:
    """A file as a module under a name that no other module has."""
    name = f"_shoal_step_{hashlib.sha256(file.encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise DataError(f"data.clean: {file} is not there. It must lie where all nodes see it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look it up there
    _execute(lambda: spec.loader.exec_module(module), file)  # type: ignore[union-attr]
    return module


def _from_name(module: str) -> ModuleType:
    found: ModuleType = _execute(lambda: importlib.import_module(module), module)
    return found


def _execute(load: Callable[[], Any], what: str) -> Any:
    try:
        return load()
    # Importing runs the user's code, which may raise anything, and call sys.exit.
    except (Exception, SystemExit) as error:
        raise DataError(
            f"data.clean: {what} cannot be imported: {type(error).__name__}: {error}. A module "
            "must be installed on all nodes; a file stands alone, and is named as file.py:function"
        ) from error


def _check_options(function: Callable[..., Any], step: steps.Call) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # of some functions written in C
        return
    try:
        signature.bind("", **step.options)
    except TypeError as error:
        raise DataError(
            f"data.clean: {short_name(step)} is called with a text and the options "
            f"{', '.join(step.options) or 'none'}, but its signature is {signature}: {error}"
        ) from error
