"""The card of what leaves the house: README.md, with the front matter that the hub reads.

Functions from what is known to text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.base_ref import BaseRef
from adapters.classification import MULTI_LABEL
from recipes.readable_yaml import to_yaml

_CLASS = {
    "causal_lm": "AutoModelForCausalLM",
    "sequence_classification": "AutoModelForSequenceClassification",
}
_PIPELINE = {"causal_lm": "text-generation", "sequence_classification": "text-classification"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Numbers of the prepared data."""

    train_samples: int
    train_sequences: int
    train_tokens: int
    supervised_tokens: int
    held_out_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a card tells of a run and its checkpoint."""

    run: str
    """Its name."""
    description: str
    task: str
    kind: str
    """Of the adapter, as in the recipe."""
    step: int
    base: BaseRef
    hub_id: str | None
    """By which anybody gets the base; None when it is only known as a folder."""
    quantization: str
    """Of the base while it was trained on."""
    new_tokens: Sequence[str]
    """Added to the base's tokenizer, which then lies with the adapter."""
    labels: Sequence[str]
    multi_label: bool
    """Whether a text can have several of them."""
    rows: Rows | None
    """None when the prepared data is no longer at hand."""
    data_digest: str
    recipe_digest: str
    settings: Mapping[str, Any]
    """The sections of the recipe that say how it was trained."""
    before: Mapping[str, float]
    after: Mapping[str, float]
    """Scores on the held-out rows; empty when they were not measured at this step."""
    versions: Mapping[str, str]
    """Of the libraries that exported it."""


def adapter_card(facts: Facts) -> str:
    """Of an adapter as PEFT opens it."""
    front = _front(facts, "adapter", library_name="peft", tags=["peft", facts.kind, "shoal"])
    notes = []
    if facts.hub_id is None:
        notes = [
            "`adapter_config.json` names the base by that folder. Libraries that look it up there "
            "need the folder, or a hub id in its place: `shoal export … --base-model ORG/NAME`."
        ]
    use = _code(_adapter_lines(facts))
    return _card(front, facts, f"A `{facts.kind}` adapter", use, notes)


def merged_card(facts: Facts, *, dtype: str, difference: float) -> str:
    """Of a whole model; `difference` is that of `merge.Merged`."""
    front = _front(facts, "finetune", library_name="transformers", tags=[facts.kind, "shoal"])
    notes = [
        _merge_note(difference)
        + (f" Then the numbers were rounded to {dtype}." if dtype != "float32" else ""),
        *_quantization_notes(facts),
    ]
    use = _code(_merged_lines(facts))
    return _card(front, facts, f"A model with a `{facts.kind}` adapter merged into it,", use, notes)


def gguf_card(facts: Facts, *, file: str, outtype: str, difference: float) -> str:
    """Of a file for llama.cpp and what builds on it."""
    front = _front(facts, "quantized", library_name="gguf", tags=["gguf", facts.kind, "shoal"])
    notes = [
        _merge_note(difference) + f" llama.cpp's converter then wrote it as {outtype}; what that "
        "changes was not measured.",
        *_quantization_notes(facts),
    ]
    use = f"```bash\nllama-cli -m {file}\n```"
    return _card(front, facts, f"A model with a `{facts.kind}` adapter merged into it,", use, notes)


def _front(facts: Facts, relation: str, *, library_name: str, tags: Sequence[str]) -> str:
    """What the hub reads. It takes a base by its hub id alone, and refuses a card with a path."""
    fields: dict[str, Any] = {}
    if facts.hub_id is not None:
        fields |= {"base_model": facts.hub_id, "base_model_relation": relation}
    fields |= {
        "library_name": library_name,
        "pipeline_tag": _PIPELINE[facts.task],
        "tags": list(tags),
    }
    return f"---\n{to_yaml(fields)}---"


def _card(front: str, facts: Facts, what: str, use: str, notes: Sequence[str]) -> str:
    parts = [
        front,
        f"# {facts.run}",
        *([" ".join(facts.description.split())] if facts.description else []),
        f"{what} trained with shoal for {facts.step:,} steps.",
        "## How to load it",
        use,
        *notes,
        "## Base",
        *_base(facts),
        "## Scores",
        _scores(facts),
        "## Data",
        _data(facts),
        "## Recipe",
        f"The digest of what decides what is learnt is `{facts.recipe_digest}`. `recipe.yaml` "
        "beside this card has every value, also the folders of the machine it ran on; these "
        "said how it was trained:",
        f"```yaml\n{to_yaml(dict(facts.settings))}```",
        "## Versions",
        ", ".join(f"{name} {version}" for name, version in facts.versions.items()) + ".",
        "`manifest.json` has the sha256 of every file but this card; `shoal verify` compares them.",
    ]
    return "\n\n".join(parts) + "\n"


def _base(facts: Facts) -> Iterator[str]:
    base = facts.base
    revision = f", revision `{base.revision}`" if base.revision else ""
    yield f"`{facts.hub_id or base.source}`{revision}. The digest of its files is `{base.digest}`."
    if facts.hub_id is None:
        yield (
            "That is a folder of the machine it was trained on. Elsewhere, take the base from "
            "where you have it; `shoal verify FOLDER` tells the first twelve digits of a base's "
            "digest."
        )
    yield "Its licence holds for this as well."


def _scores(facts: Facts) -> str:
    if not facts.after and not facts.before:
        return "None were measured."
    names = [name for name in (facts.after or facts.before) if name != "rows"]
    rows = [
        f"| {name} | {_number(facts.before, name)} | {_number(facts.after, name)} |"
        for name in names
    ]
    count = int((facts.after or facts.before).get("rows", 0))
    text = f"On {count:,} held-out samples:\n\n|  | base | trained |\n|---|---|---|\n"
    text += "\n".join(rows)
    if not facts.after:
        text += "\n\nAt this step it was not measured."
    return text


def _number(scores: Mapping[str, float], name: str) -> str:
    return f"{scores[name]:.4f}" if name in scores else "–"


def _data(facts: Facts) -> str:
    digest = f"The digest of its training rows is `{facts.data_digest}`."
    labels = (
        f" Labels: {', '.join(f'`{label}`' for label in facts.labels)}." if facts.labels else ""
    )
    rows = facts.rows
    if rows is None:
        return f"{digest} Its numbers were not at hand when this was exported.{labels}"
    return (
        f"{rows.train_samples:,} samples in {rows.train_sequences:,} sequences, "
        f"{rows.supervised_tokens:,} of {rows.train_tokens:,} tokens supervised; "
        f"{rows.held_out_samples:,} samples held out. {digest}{labels}"
    )


def _merge_note(difference: float) -> str:
    return (
        "The adapter was merged into the base in float32. On a few rows what was merged gave the "
        f"logits of base and adapter, to {difference:.0e} of the largest."
    )


def _quantization_notes(facts: Facts) -> list[str]:
    if facts.quantization == "none":
        return []
    return [
        f"It was trained on the base quantised to {facts.quantization}, and merged into the base "
        "as it is: its logits differ from those it was trained with by what quantising changed."
    ]


def _adapter_lines(facts: Facts) -> list[str]:
    kind, base = _CLASS[facts.task], facts.hub_id or facts.base.source
    options = f", revision={facts.base.revision!r}" if facts.base.revision else ""
    if facts.labels:
        options += f", id2label={dict(enumerate(facts.labels))!r}"
    if facts.multi_label:
        options += f", problem_type={MULTI_LABEL!r}"
    room = [
        "tokenizer = AutoTokenizer.from_pretrained('.')  # with new tokens: make room for them",
        "if len(tokenizer) > base.get_input_embeddings().num_embeddings:",
        "    base.resize_token_embeddings(len(tokenizer))",
    ]
    return [
        "from peft import PeftModel",
        f"from transformers import {kind}{', AutoTokenizer' if facts.new_tokens else ''}",
        "",
        f"base = {kind}.from_pretrained({base!r}{options})",
        *(room if facts.new_tokens else []),
        "model = PeftModel.from_pretrained(base, '.')  # the folder of this card",
    ]


def _merged_lines(facts: Facts) -> list[str]:
    kind = _CLASS[facts.task]
    return [
        f"from transformers import {kind}, AutoTokenizer",
        "",
        f"model = {kind}.from_pretrained('.')  # the folder of this card",
        "tokenizer = AutoTokenizer.from_pretrained('.')",
    ]


def _code(lines: Sequence[str]) -> str:
    return "\n".join(["```python", *lines, "```"])
