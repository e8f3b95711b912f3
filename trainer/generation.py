"""Answers to prompts, by the adapter over its base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from adapters.base import load_base
from adapters.base_ref import base_ref
from adapters.checkpoint_folder import adapter_folder, check_base
from adapters.quantization import quantization_of
from adapters.tokenizer import load_tokenizer, pad_token_id
from recipes.base import Base
from trainer.device import choose_dtype, rank_device
from trainer.kernels import choose_kernels


@torch.no_grad()
def generate(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """The likeliest continuation of each prompt (token ids), decoded without special tokens.

    Greedy, one prompt at a time. Under ZeRO 3 every rank must call it with the same prompts.
    """
    model.eval()
    answers = []
    for done, prompt in enumerate(prompts):
        progress(done, len(prompts))
        ids = torch.tensor([list(prompt)], device=device)
        output = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            pad_token_id=pad_token_id(tokenizer),
        )
        answers.append(
            tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip()
        )
    return answers


def answer(
    base: Base,
    base_folder: Path,
    checkpoint: Path | None,
    prompt: str,
    *,
    system: str | None,
    max_new_tokens: int,
) -> str:
    """Answer one prompt in this process, by a checkpoint's adapter or by the base alone.

    The prompt becomes a chat when the tokenizer has a template; otherwise it is continued.
    """
    if checkpoint is not None:
        check_base(checkpoint, base_ref(base.source, base.revision, base_folder))
    device = rank_device()
    tokenizer = load_tokenizer(base_folder)
    dtype = choose_dtype(base, device)
    attention = choose_kernels(base, "causal_lm", dtype, device).attention
    quantization = quantization_of(base, device)
    model: Any = load_base(
        base_folder,
        "causal_lm",
        dtype,
        attention,
        quantization=quantization,
        allow_pickle=base.allow_pickle,
    ).model
    if checkpoint is not None:
        model = PeftModel.from_pretrained(model, str(adapter_folder(checkpoint)))
    ids = _prompt_ids(tokenizer, prompt, system)
    if quantization is None:  # else it is there, and 8-bit ones do not move
        model = model.to(device)
    return generate(model, tokenizer, [ids], max_new_tokens=max_new_tokens, device=device)[0]


def _prompt_ids(tokenizer: Any, prompt: str, system: str | None) -> list[int]:
    if tokenizer.chat_template is None:
        return list(tokenizer(prompt)["input_ids"])
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": prompt})
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    return list(rendered["input_ids"])
