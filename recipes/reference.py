"""docs/recipe.md: every key of a recipe, from the one-line docstrings of its fields; and
docs/compatibility.md: what can be combined, from the table that `shoal check` goes by.

`python -m recipes.reference` writes them, `--check` says whether they are up to date.
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes import compatibility, schema, zero_options
from recipes.data import CleaningStep, Source
from recipes.data.steps import STEPS
from recipes.recipe import Recipe

DOCS = Path(__file__).parent.parent / "docs"

_HEAD = """# The recipe, key by key

Written by `make docs` from the docstrings in `recipes/`; do not edit it here.

A recipe is a YAML file with the sections below. Values on the command line, `section.key=value`,
replace those of the file; lists are replaced whole. `shoal check RECIPE` tells every problem at
once.

- Relative paths start at the folder of the recipe; on the command line, and in the default of
  `storage.path`, at the working directory.
- `sample:NAME` and `sample:NAME/FILE` stand for a sample that `shoal samples NAME` has fetched.
- `${section.key}` takes the value of another key, `${oc.env:NAME}` that of an environment variable.
- A single value where a list is expected is a list of one.
"""


def render() -> str:
    """The whole page."""
    docs = schema.docstrings(Recipe)
    parts = [_HEAD, "## Top level\n", *_table(schema.fields_of(Recipe, ""))]
    for section, classes in schema.sections().items():
        parts += [f"\n## {section}\n", f"{docs[section]}\n"]
        kinds = schema.kinds(section)
        if not kinds:
            parts += _table(schema.fields_of(classes[0], f"{section}."))
        for name, kind in kinds.items():
            leaves = schema.fields_of(kind, f"{section}.")
            parts += [f"### {section}.kind: {name}\n", f"{_one_line(kind.__doc__)}\n"]
            parts += [*_table([leaf for leaf in leaves if leaf.path != f"{section}.kind"]), ""]
        if section == "data":
            parts += _entries()
    return "\n".join(parts) + "\n"


def _entries() -> Iterator[str]:
    """What stands in the lists data.train and data.clean."""
    yield f"\n### Sources: data.train, data.held_out\n\n{_one_line(Source.__doc__)}\n"
    yield from _table(schema.fields_of(Source, ""))
    yield f"\n### Steps: data.clean\n\n{_one_line(CleaningStep.__doc__)}\n"
    yield "| step | what it does | option | value | default | meaning |"
    yield "|---|---|---|---|---|---|"
    kinds: Mapping[str, Any] = STEPS
    for name, step in kinds.items():
        does = f"`{name}` | {_cell(_one_line(step.__doc__))}"
        options = schema.fields_of(step, "")
        if not options:
            yield f"| {does} | | | | |"
        for option in options:
            told = f"{_cell(option.allowed)} | {_default(option)} | {_cell(option.doc)}"
            yield f"| {does} | `{option.path}` | {told} |"
            does = "|"


def _table(leaves: Sequence[schema.Field]) -> list[str]:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for leaf in leaves:
        name = leaf.path.rpartition(".")[2]
        allowed = _cell(leaf.allowed) + (" (below)" if leaf.item is not None else "")
        rows.append(f"| `{name}` | {allowed} | {_default(leaf)} | {_cell(leaf.doc)} |")
    return rows


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _default(field: schema.Field) -> str:
    if field.path == "storage.cache":
        return "`~/.cache/shoal`"
    if field.path == "name":
        return "the file's name"
    if field.required:
        return "must be given"
    return f"`{json.dumps(field.default, ensure_ascii=False)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


_COMPATIBILITY_HEAD = """# What can be combined

Written by `make docs` from `recipes/compatibility.py`; do not edit it here.

The ZeRO stages (`zero.stage`) under which each kind of adapter can be trained on a base that is
plain or quantised (`base.quantization`). `shoal check` refuses the others, with the reason and the
nearest recipe that works.

All that is in the table was trained on a CPU, by two workers: `tests/trainer/test_kinds.py`,
`test_experts.py` and `test_quantization.py`. They also try what is refused, and fail once a library
has learnt to.
"""


def render_compatibility() -> str:
    """The page of the table."""
    bases = typing.get_args(schema.fields()["base.quantization"].type)
    rows = [
        f"| adapter | {' | '.join(f'`{base}`' for base in bases)} |",
        "|---" * (1 + len(bases)) + "|",
    ]
    rest = [name for name in schema.kinds("adapter") if name != "lora"]
    for kind in ("lora", *compatibility.VARIANTS, *rest):
        cells = [
            ", ".join(str(s) for s in range(4) if compatibility.forbidden(kind, base, s) is None)
            for base in bases
        ]
        rows.append(f"| `{kind}` | {' | '.join(cell or '–' for cell in cells)} |")
    reasons = [
        f"- {entry.why}: {_combination(entry)}. {entry.nearest}."
        for entry in compatibility.FORBIDDEN
    ]
    return (
        "\n".join(
            [
                _COMPATIBILITY_HEAD,
                *rows,
                "",
                "Variants of `lora`: " + ", ".join(_variants()) + ".",
                "",
                "Why the others are not:",
                "",
                *reasons,
                "",
                *_zero_options(),
            ]
        )
        + "\n"
    )


_ZERO_OPTIONS_HEAD = """## Options of `zero`

Each learns the same losses and goes on bit by bit, in float32 and in bfloat16, also together:
`tests/trainer/test_zero_options.py` tries it on CPUs; the same for a GPU is in `tests/gpu`, and has
not been run yet. `offload_optimizer` goes with `train.optimizer: adamw` alone. `hpz_size` divides
the workers of every node. DeepSpeed's `zero_quantized_nontrainable_weights` is not offered: version
0.19 takes it in float16 alone, and shoal computes in float32 or bfloat16.
"""


def _zero_options() -> list[str]:
    """The table of what else can be said of a stage."""
    bases = typing.get_args(schema.fields()["base.quantization"].type)
    rows = [
        _ZERO_OPTIONS_HEAD,
        "| key | stages | on bases | on CPUs | on GPUs |",
        "|---" * 5 + "|",
    ]
    for option in zero_options.OPTIONS:
        stages = ", ".join(str(stage) for stage in option.stages)
        fitting = [
            f"`{base}`"
            for base in bases
            if any(compatibility.forbidden("lora", base, stage) is None for stage in option.stages)
        ]
        rows.append(
            f"| `{option.name}` | {stages} | {', '.join(fitting)} | {option.on_cpus} "
            f"| {option.on_gpus} |"
        )
    return rows


def _variants() -> Iterator[str]:
    for name, how in compatibility.VARIANTS.items():
        yield f"`{name}` (`{how.replace(' = ', ': ')}`)"


def _combination(entry: compatibility.Forbidden) -> str:
    told = [", ".join(f"`{kind}`" for kind in entry.kinds) or "any adapter"]
    if entry.quantizations:
        told.append("on " + ", ".join(f"`{name}`" for name in entry.quantizations))
    if len(entry.stages) < 4:
        told.append("under stage " + ", ".join(str(stage) for stage in entry.stages))
    return " ".join(told)


def main() -> None:
    """Write the pages, or with `--check` fail when one is not what would be written."""
    pages = {"recipe.md": render(), "compatibility.md": render_compatibility()}
    for name, text in pages.items():
        file = DOCS / name
        if "--check" not in sys.argv:
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            sys.exit(f"{file} is out of date; `make docs` writes it anew")


if __name__ == "__main__":
    main()
