"""The frozen model that adapters are trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from recipes.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    source: str
    """Folder of a model in Hugging Face format, hub id `org/model`, GGUF file, or `sample:NAME`."""

    revision: str | None = None
    """Commit or tag of a hub model; a folder has none."""

    allow_pickle: bool = False
    """Take weights that are pickles, which can run programs; only tensors are read from them."""

    copy_to: str | None = None
    """Folder on each node's own disk, such as `$SLURM_TMPDIR`, for a copy that its ranks share."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of base and activations; `auto` is bfloat16 on GPUs and the faster one on CPUs."""

    quantization: Literal["none", "nf4", "fp4", "int8"] = "none"
    """Keep linear weights but the head's in 4 bits (bitsandbytes, arXiv:2305.14314), or 8."""

    double_quantization: bool = True
    """Of nf4 and fp4: the scales of the blocks in 8 bits too, 0.4 bits less for each number."""

    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3"] = "auto"
    """Attention kernel; `auto` is flash_attention_2 for a causal_lm on GPUs with it, else sdpa."""

    kernels: Literal["auto", "torch"] = "auto"
    """Kernels of the layers and the loss; `auto` is Liger's on GPUs that have it, else torch's."""

    new_tokens: list[str] = field(default_factory=list)
    """Tokens added to the tokenizer; lora trains their embeddings, and saves the tokenizer."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory for about a third more time."""

    def problems(self) -> Iterator[Problem]:
        if self.copy_to is not None and not self.copy_to.startswith(("/", "$")):
            yield Problem(
                path="base.copy_to",
                value=self.copy_to,
                message="is no folder that every node can have",
                allowed="an absolute path, which may begin with a variable such as $SLURM_TMPDIR",
            )
        if len(set(self.new_tokens)) < len(self.new_tokens) or not all(self.new_tokens):
            yield Problem(
                path="base.new_tokens",
                value=list(self.new_tokens),
                message="names a token twice, or one without a character",
            )
        if not self.source.strip():
            yield Problem(path="base.source", value=self.source, message="is empty")
        if self.revision is not None and self.source.startswith(("sample:", "/", ".", "~")):
            yield Problem(
                path="base.revision",
                value=self.revision,
                message="a folder has no revision",
                hint="Leave it out, or name a hub model in base.source",
            )
