"""docs/recipe.md: every key of a recipe, from the one-line docstrings of its fields.

`python -m recipes.reference` writes it, `--check` says whether it is up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from recipes import schema
from recipes.recipe import Recipe

FILE = Path(__file__).parent.parent / "docs" / "recipe.md"

_HEAD = """# The recipe, key by key

Written by `make docs` from the docstrings in `recipes/`; do not edit it here.

A recipe is a YAML file with the sections below. Values on the command line, `section.key=value`,
replace those of the file; lists are replaced whole. `shoal check RECIPE` tells every problem at
once.

- Relative paths start at the folder of the recipe; on the command line, at the working directory.
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
    return "\n".join(parts) + "\n"


def _table(leaves: Sequence[schema.Field]) -> list[str]:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for leaf in leaves:
        name = leaf.path.rpartition(".")[2]
        rows.append(f"| `{name}` | {_cell(leaf.allowed)} | {_default(leaf)} | {_cell(leaf.doc)} |")
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


def main() -> None:
    """Write the page, or with `--check` fail when it is not what would be written."""
    text = render()
    if "--check" in sys.argv:
        if not FILE.is_file() or FILE.read_text(encoding="utf-8") != text:
            sys.exit(f"{FILE} is out of date; `make docs` writes it anew")
        return
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
