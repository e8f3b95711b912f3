"""Answers to prompts: whole ones in batches, or one as it comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from adapters.tokenizer import pad_token_id
from trainer.opened import OpenedBase


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen."""

    max_new_tokens: int
    temperature: float = 0.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """Sample among the likeliest tokens that have this share of the probability together."""

    def options(self) -> dict[str, Any]:
        """For `generate` of transformers; what a base asks for in its own configuration yields."""
        found: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": self.temperature > 0,
            "num_beams": 1,
            "use_cache": True,
        }
        if self.temperature > 0:
            found |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return found


@torch.no_grad()
def generate(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    device: torch.device,
    batch_size: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """The likeliest continuation of each prompt (token ids), decoded without special tokens.

    Prompts of a batch are filled up on the left, and answered as each would be alone. Under ZeRO 3
    every rank must call it with the same prompts.
    """
    model.eval()
    answers: list[str] = []
    options = Sampling(max_new_tokens=max_new_tokens).options()
    for batch in _batches(prompts, batch_size, equal=not _takes_padding(model)):
        progress(len(answers), len(prompts))
        ids, mask = _pad_left(batch, pad_token_id(tokenizer), device)
        output = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            pad_token_id=pad_token_id(tokenizer),
            **options,
        )
        ends = _ends(model)
        for row in output[:, ids.shape[1] :].tolist():
            text = tokenizer.decode(_up_to_end(row, ends), skip_special_tokens=True)
            answers.append(text.strip())
    return answers


def _batches(
    prompts: Sequence[Sequence[int]], batch_size: int, *, equal: bool
) -> Iterator[list[Sequence[int]]]:
    """At most `batch_size` neighbours; `equal` ones have the same length."""
    batch: list[Sequence[int]] = []
    for prompt in prompts:
        if len(batch) == batch_size or (equal and batch and len(batch[0]) != len(prompt)):
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def _takes_padding(model: Any) -> bool:
    """Whether padding before a prompt changes nothing.

    Virtual tokens come before it, and PEFT then counts positions over it; a penalty for repetition
    takes it for text, and often it is the very token that ends an answer.
    """
    config = getattr(model, "active_peft_config", None)
    if config is not None and config.is_prompt_learning:
        return False
    asked = model.generation_config
    return getattr(asked, "repetition_penalty", None) in (None, 1.0) and not getattr(
        asked, "no_repeat_ngram_size", None
    )


def _pad_left(
    prompts: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and their mask: int64, [B, T]."""
    width = max(map(len, prompts))
    ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _ends(model: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    return set(ends if isinstance(ends, list) else [ends])


def _up_to_end(ids: Sequence[int], ends: set[int]) -> list[int]:
    """What was said before the first token that ends it; the rest of a batch's row is padding."""
    end = next((number for number, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[:end])


def stream(
    opened: OpenedBase, name: str | None, prompt: Sequence[int], sampling: Sampling
) -> Generator[str]:
    """The answer of an adapter, or of the base alone, piece by piece as words come.

    A generator that is closed before its end stops the answer after its current token.
    """
    streamer = TextIteratorStreamer(
        opened.tokenizer,
        skip_prompt=True,
        skip_special_tokens=True,
    )
    stopped = threading.Event()
    failed: list[BaseException] = []

    def answer() -> None:
        ids, mask = _pad_left([prompt], opened.pad_token_id, opened.device)
        try:
            with opened.by(name) as model:
                model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    pad_token_id=opened.pad_token_id,
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([_Stop(stopped)]),
                    **sampling.options(),
                )
        except BaseException as error:  # of another thread: raised in the one that listens
            failed.append(error)
            streamer.end()

    thread = threading.Thread(target=answer, daemon=True, name="answering")
    thread.start()
    try:
        for piece in streamer:
            if piece:
                yield piece
    finally:
        stopped.set()
        thread.join()
    if failed:
        raise failed[0]


class _Stop(StoppingCriteria):
    """Ends an answer once it is no more wanted."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        return torch.full((len(input_ids),), self._stopped.is_set(), device=input_ids.device)
