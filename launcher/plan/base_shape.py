"""The base's modules and their shapes, from config.json and the headers of its safetensors files.

A safetensors file begins with 8 bytes that give the length of a JSON header, and the header: names,
dtypes and shapes of all tensors (https://github.com/huggingface/safetensors). No weight is read.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapters.base_ref import read_config
from recipes.errors import BaseModelError

_LONGEST_HEADER_BYTES = 100_000_000  # the format's own limit
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
_EMBEDDING = re.compile(r"(^|[._])(embed\w*|wte|wpe|shared|relative_attention_bias)$")
_OUTPUT_HEADS = ("lm_head", "embed_out")
# Parts of a pretrained encoder that only its own pretraining task has.
_PRETRAINING_HEADS = ("cls.", "lm_head.", "embed_out.", "vocab_")
_HEADS = ("classifier", "score")
_HIDDEN_DROPOUT = ("hidden_dropout_prob", "resid_pdrop")
_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
_ENCODER_HEAD_OF_TWO = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One parameter, named as in the file."""

    name: str
    shape: tuple[int, ...]
    stored_bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """The numbers of a transformer that decide how much it keeps for the backward pass."""

    layers: int
    hidden: int
    intermediate: int
    attention: int
    """Heads times the width of one: what queries, and the attention's output, take of a token."""
    heads: int
    kv_heads: int
    vocabulary: int
    gated: bool
    """Whether the MLP multiplies two wide matrices, as Llama's does."""
    hidden_dropout: bool
    attention_dropout: bool

    @property
    def keys(self) -> int:
        """What keys, and values, take of a token, shared heads counted once."""
        return self.kv_heads * (self.attention // self.heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseShape:
    """The base as it stands in memory for a task: what its files hold, and a head they lack."""

    model_type: str
    tensors: tuple[Tensor, ...]
    head: tuple[Tensor, ...]
    """Parameters of the new head of a classification; none for causal models."""
    widths: Widths
    file_bytes: int
    """Of all files of weights."""
    tokenizer_bytes: int
    """Of tokenizer.json."""

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in (*self.tensors, *self.head))

    def without(self, names: Iterable[str]) -> BaseShape:
        """The base but for some parameters."""
        left = set(names)
        return replace(
            self,
            tensors=tuple(tensor for tensor in self.tensors if tensor.name not in left),
            head=tuple(tensor for tensor in self.head if tensor.name not in left),
        )

    @property
    def tied(self) -> str | None:
        """The embedding that is the output head of a causal model too, by name."""
        if self.head or any(tensor.name.startswith(_OUTPUT_HEADS) for tensor in self.tensors):
            return None
        for tensor in self.tensors:
            if tensor.shape[0] == self.widths.vocabulary and len(tensor.shape) == 2:
                return tensor.name
        return None

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """Modules that can be adapted, by name: their weight's shape. As `adapters.attach` sees
        them: no output head, no embedding, no stacked experts, no router before them."""
        mixtures = {t.name.partition(".experts.")[0] for t in self.tensors if ".experts." in t.name}
        return {
            name: (tensor.shape[0], tensor.shape[1])
            for tensor in self.tensors
            if (name := tensor.name.removesuffix(".weight")) != tensor.name
            and len(tensor.shape) == 2
            and _is_linear(name)
            and not (name.endswith((".gate", ".router")) and name.rpartition(".")[0] in mixtures)
        }

    @property
    def norms(self) -> dict[str, int]:
        """Normalisations by name: their width."""
        return {
            name: tensor.shape[0]
            for tensor in self.tensors
            if (name := tensor.name.removesuffix(".weight")) != tensor.name
            and len(tensor.shape) == 1
        }


def read_base_shape(folder: Path, *, task: str, num_labels: int) -> BaseShape:
    """The shape of the base in a folder.

    Raises `BaseModelError` when it has no safetensors files, or one that is torn.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BaseModelError(
            f"{folder}: its shapes cannot be told without loading it: its weights are no "
            "safetensors. Convert them with transformers' save_pretrained"
        )
    stored = [tensor for file in files for tensor in read_header(file)]
    tokenizer = folder / "tokenizer.json"
    return base_shape(
        read_config(folder),
        stored,
        task=task,
        num_labels=num_labels,
        file_bytes=sum(file.stat().st_size for file in files),
        tokenizer_bytes=tokenizer.stat().st_size if tokenizer.is_file() else 0,
    )


def base_shape(
    config: Mapping[str, Any],
    stored: Sequence[Tensor],
    *,
    task: str,
    num_labels: int,
    file_bytes: int,
    tokenizer_bytes: int = 0,
) -> BaseShape:
    """The same from what was read; `stored` is what the files of weights hold."""
    text = text_config(config)
    model_type = str(text.get("model_type", ""))
    tensors = tuple(tensor for tensor in stored if _is_loaded(tensor.name, text, task))
    widths = _widths(text, tensors)
    head: tuple[Tensor, ...] = ()
    if task == "sequence_classification":
        unused = (*_HEADS, *(("pooler",) if model_type in _ENCODER_HEAD_OF_TWO else ()))
        tensors = tuple(t for t in tensors if not set(t.name.split(".")[:2]) & set(unused))
        tensors += _missing_pooler(text, tensors, widths)
        head = _new_head(model_type, widths.hidden, num_labels)
    return BaseShape(
        model_type=model_type,
        tensors=tensors,
        head=head,
        widths=widths,
        file_bytes=file_bytes,
        tokenizer_bytes=tokenizer_bytes,
    )


def read_header(file: Path) -> list[Tensor]:
    """Name, shape and stored bytes of every tensor in a safetensors file, in its order."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _LONGEST_HEADER_BYTES:
                raise ValueError(f"a header of {length:,} bytes")
            header = json.loads(stream.read(length))
        return [
            Tensor(
                name=name,
                shape=tuple(entry["shape"]),
                stored_bytes=math.prod(entry["shape"]) * _BYTES.get(entry["dtype"], 1),
            )
            for name, entry in header.items()
            if name != "__metadata__"
        ]
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise BaseModelError(f"{file}: is no safetensors file: {error}") from error


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that is about text; of most, all of it."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config


def _is_loaded(name: str, config: Mapping[str, Any], task: str) -> bool:
    """Whether the model for the task has this parameter of its own."""
    if task == "sequence_classification":
        return not name.startswith(_PRETRAINING_HEADS)
    tied = bool(config.get("tie_word_embeddings", True))
    return not (tied and name.startswith(_OUTPUT_HEADS))


def _is_linear(name: str) -> bool:
    first, last = name.split(".")[0], name.rpartition(".")[2]
    return (
        first not in (*_HEADS, *_OUTPUT_HEADS)
        and last not in _OUTPUT_HEADS
        and not _EMBEDDING.search(last)
        and not last.endswith("embeddings")
        and ".experts." not in name
    )


def _missing_pooler(
    config: Mapping[str, Any], tensors: Sequence[Tensor], widths: Widths
) -> tuple[Tensor, ...]:
    """BERT classifies from its pooler, which it begins anew when the file has none."""
    has_one = any("pooler" in tensor.name for tensor in tensors)
    if config.get("model_type") != "bert" or has_one:
        return ()
    return (
        _tensor("pooler.dense.weight", widths.hidden, widths.hidden),
        _tensor("pooler.dense.bias", widths.hidden),
    )


def _new_head(model_type: str, hidden: int, num_labels: int) -> tuple[Tensor, ...]:
    if model_type in _ENCODER_HEAD_OF_TWO:
        return (
            _tensor("classifier.dense.weight", hidden, hidden),
            _tensor("classifier.dense.bias", hidden),
            _tensor("classifier.out_proj.weight", num_labels, hidden),
            _tensor("classifier.out_proj.bias", num_labels),
        )
    if model_type in _ENCODERS:
        return (
            _tensor("classifier.weight", num_labels, hidden),
            _tensor("classifier.bias", num_labels),
        )
    return (_tensor("score.weight", num_labels, hidden),)


_ENCODERS = ("bert", "electra", "albert", "deberta", "deberta-v2", "modernbert", "distilbert")


def _tensor(name: str, *shape: int) -> Tensor:
    return Tensor(name=name, shape=shape, stored_bytes=0)


def _widths(config: Mapping[str, Any], tensors: Sequence[Tensor]) -> Widths:
    def number(*names: str, default: int = 0) -> int:
        for name in names:
            if isinstance(config.get(name), int):
                return int(config[name])
        return default

    hidden = number("hidden_size", "n_embd", "dim", "d_model")
    heads = number("num_attention_heads", "n_head", "n_heads", default=1)
    head = number("head_dim", default=hidden // heads if heads else 0)
    names = [tensor.name for tensor in tensors]
    return Widths(
        layers=number("num_hidden_layers", "n_layer", "n_layers"),
        hidden=hidden,
        intermediate=number("intermediate_size", "n_inner", "hidden_dim", default=4 * hidden),
        attention=heads * head,
        heads=max(1, heads),
        kv_heads=number("num_key_value_heads", default=heads),
        vocabulary=number("vocab_size"),
        gated=any("gate_proj" in name or "gate_up_proj" in name for name in names),
        hidden_dropout=any(config.get(name) for name in _HIDDEN_DROPOUT),
        attention_dropout=any(config.get(name) for name in _ATTENTION_DROPOUT),
    )
