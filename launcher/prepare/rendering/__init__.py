"""From a sample to token ids and labels."""

from launcher.prepare.rendering.chats import render_chat, token_ids
from launcher.prepare.rendering.fitting import ids_of_texts, render
from launcher.prepare.rendering.rendered import Cut, Rendered
from launcher.prepare.rendering.texts import render_classified

__all__ = [
    "Cut",
    "Rendered",
    "ids_of_texts",
    "render",
    "render_chat",
    "render_classified",
    "token_ids",
]
