"""Variables of the shell, which a recipe names for its run; their values are written nowhere.

What is secret is told by its name, as in most tools: HF_TOKEN, WANDB_API_KEY, DB_PASSWORD.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence

from recipes.errors import RecipeError

# Upper or lower case, as variables are written: a token that was pasted here has both.
_NAME = re.compile(r"[A-Z_][A-Z0-9_]*|[a-z_]+")
_SECRET_WORDS = re.compile(
    r"(?:^|_)(?:TOKENS?|KEYS?|APIKEY|SECRETS?|PASS|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(?:_|$)",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(r"(?:^|[\s;&(])([A-Za-z_]\w*)=[\"']?([^\s\"';$]+)")
_TAKEN = re.compile(r"\$\{oc\.env:\s*(\w+)")


def is_name(text: str) -> bool:
    """Whether this is the name of a variable, rather than a value that should not be here."""
    return _NAME.fullmatch(text) is not None


def is_secret(name: str) -> bool:
    """Whether a variable of this name is taken for a secret."""
    return _SECRET_WORDS.search(name) is not None


def assigned_secret(line: str) -> str | None:
    """The variable that a line of shell gives a secret value, written out."""
    return next((found[1] for found in _ASSIGNED.finditer(line) if is_secret(found[1])), None)


def interpolated_secret(value: object) -> str | None:
    """The secret variable whose value a value of a recipe would become."""
    return next((name for name in _TAKEN.findall(str(value)) if is_secret(name)), None)


def values(names: Sequence[str], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The named variables. Raises `RecipeError` that names those which are not set."""
    unset = [name for name in names if name not in environment]
    if unset:
        raise RecipeError(
            f"cluster.env: {', '.join(unset)}: not set in this shell. Set it there, such as with "
            f"`export {unset[0]}=…`, or take it out of cluster.env"
        )
    return {name: environment[name] for name in names}


def secrets(kept: Collection[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """Names of secret variables that are set, without those that are `kept`."""
    return [name for name in environment if is_secret(name) and name not in kept]


def for_storage(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What opens object storage to a run that is kept there."""
    return {name: text for name, text in environment.items() if name.startswith("AWS_")}
