"""The kind that hands its options to PEFT as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from recipes.adapter.targeted import Targeted
from recipes.problem import Problem

# What has a section of its own, and what needs more than a configuration.
_OWN_KINDS = {
    "LORA": "lora",
    "ADALORA": "adalora",
    "LOHA": "loha",
    "LOKR": "lokr",
    "IA3": "ia3",
    "OFT": "oft",
    "BOFT": "boft",
    "VERA": "vera",
    "LN_TUNING": "ln_tuning",
    "PROMPT_TUNING": "prompt_tuning",
    "P_TUNING": "p_tuning",
    "PREFIX_TUNING": "prefix_tuning",
}
_REFUSED = {
    "XLORA": "mixes adapters that were trained before",
    "POLY": "needs the number of a task with every row",
    "MULTITASK_PROMPT_TUNING": "needs the number of a task with every row",
    "CPT": "learns from one context, not from rows",
    "CARTRIDGE": "begins with a cache of one long text",
    "ADAPTION_PROMPT": "is tied to the layers of Llama and a few others",
    "OSF": "rewrites the base's weights",
    "SHADOW": "trains a second model beside the base",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherPeft(Targeted):
    """Any other method of PEFT, with the options of its own configuration class."""

    kind: Literal["peft"] = "peft"
    """Method."""

    method: str
    """PEFT's name of it, such as HRA, MISS or FOURIERFT."""

    options: dict[str, Any] = field(default_factory=dict)
    """Keys of PEFT's configuration of the method, such as `{r: 8}`; checked when a run starts."""

    def problems(self) -> Iterator[Problem]:
        yield from Targeted.problems(self)
        own, refused = _OWN_KINDS.get(self.method.upper()), _REFUSED.get(self.method.upper())
        if own is not None:
            yield Problem(
                path="adapter.method",
                value=self.method,
                message="has a kind of its own",
                hint=f"Set adapter.kind: {own}",
            )
        if refused is not None:
            yield Problem(
                path="adapter.method", value=self.method, message=f"{refused}: not supported"
            )
