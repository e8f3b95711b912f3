"""What is trained: a small adapter inside the frozen base. One class for each kind."""

from __future__ import annotations

from recipes.adapter.allocated import Adalora
from recipes.adapter.in_place import Full, InPlace, LnTuning, Unfreeze
from recipes.adapter.low_rank import Loha, Lokr, Lora, Ranked, Vera
from recipes.adapter.other import OtherPeft
from recipes.adapter.prompts import PrefixTuning, PromptTuning, PTuning, VirtualTokens
from recipes.adapter.rotations import Boft, Oft
from recipes.adapter.scales import Ia3
from recipes.adapter.targeted import REGEX, Layered, Targeted

__all__ = [
    "REGEX",
    "Adalora",
    "Adapter",
    "Boft",
    "Full",
    "Ia3",
    "InPlace",
    "Layered",
    "LnTuning",
    "Loha",
    "Lokr",
    "Lora",
    "Oft",
    "OtherPeft",
    "PTuning",
    "PrefixTuning",
    "PromptTuning",
    "Ranked",
    "Targeted",
    "Unfreeze",
    "Vera",
    "VirtualTokens",
]

Adapter = (
    Lora
    | Adalora
    | Loha
    | Lokr
    | Ia3
    | Oft
    | Boft
    | Vera
    | LnTuning
    | Unfreeze
    | Full
    | PromptTuning
    | PTuning
    | PrefixTuning
    | OtherPeft
)
