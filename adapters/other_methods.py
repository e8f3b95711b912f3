"""Methods of PEFT that have no kind of their own: their options, checked against PEFT's classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from recipes.adapter import OtherPeft
from recipes.errors import AdapterError
from recipes.problem import did_you_mean

# What the recipe says elsewhere, and what PEFT keeps of where an adapter comes from.
_ELSEWHERE = {
    *("target_modules", "modules_to_save", "task_type", "peft_type", "inference_mode"),
    *("base_model_name_or_path", "revision", "auto_mapping", "peft_version"),
}


def other_config(adapter: OtherPeft, common: Mapping[str, Any]) -> PeftConfig:
    """PEFT's configuration of the method. Raises `AdapterError` for an option that it has not, or
    a value it does not take."""
    known = {str(kind.value): made for kind, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    made = known.get(adapter.method.upper())
    if made is None:
        hint = did_you_mean(adapter.method.upper(), known) or f"It has: {', '.join(sorted(known))}"
        raise AdapterError(f"adapter.method = {adapter.method}: PEFT has no such method. {hint}")
    fields = {field.name: field for field in dataclasses.fields(made)}
    options = [name for name in fields if name not in _ELSEWHERE]
    for name, value in adapter.options.items():
        if name in _ELSEWHERE:
            raise AdapterError(
                f"adapter.options.{name}: is said elsewhere in the recipe. Leave it out here"
            )
        if name not in options:
            hint = did_you_mean(name, options) or f"It has: {', '.join(options)}"
            raise AdapterError(
                f"adapter.options.{name}: {adapter.method} has no such option. {hint}"
            )
        _check_type(name, value, fields[name].default)
    given = {name: value for name, value in common.items() if name in fields}
    try:
        return made(**given, **adapter.options)
    except (ValueError, TypeError) as error:
        raise AdapterError(f"adapter.options: {adapter.method} refuses them: {error}") from error


def _check_type(name: str, value: Any, default: Any) -> None:
    """PEFT's classes take any value, and fail on a wrong one much later."""
    allowed: tuple[type, ...] = (type(default),)
    if isinstance(default, bool) or not isinstance(default, int | float | str):
        allowed = (bool,) if isinstance(default, bool) else (object,)
    elif isinstance(default, float):
        allowed = (int, float)
    if not isinstance(value, allowed) or (isinstance(value, bool) and allowed == (int,)):
        raise AdapterError(
            f"adapter.options.{name} = {value!r}: should be of the kind of its default, {default!r}"
        )
