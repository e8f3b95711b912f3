"""What most write to clean and tokenise: `datasets.map` on all cores, in batches.

`python -m benchmarks.plain_datasets RECIPE CORES CUTTER RESULT` reads the one file of data.train,
does the recipe's cleaning steps with shoal's own functions, and writes token ids as Arrow files.
Words are cut by `jieba.cut`, or with CUTTER `shoal` by shoal's. What shoal does besides is left
out: duplicates, splits, packing, digests, rows that fail.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adapters.tokenizer import load_tokenizer
from launcher.prepare.cleaning import cleaner_of
from recipes.data import steps
from recipes.load import load

_BATCH = 1000  # the default of `map`, and of its writer


def main(recipe_file: str, cores: int, cutter: str, result: Path) -> None:
    """Write the counts of rows and tokens as JSON."""
    import datasets

    recipe = load(recipe_file, []).recipe
    tokenizer = load_tokenizer(Path(recipe.base.source))
    cleaning = [step for step in recipe.data.clean if not isinstance(step, steps.Segment)]
    cut = _with_jieba() if cutter == "jieba" else cleaner_of([steps.Segment()]).clean
    cleaner = cleaner_of(cleaning)
    cut(["这里先读词典"])  # before the processes are forked, so that all of them have it

    def prepare(batch: dict[str, Any]) -> dict[str, Any]:
        texts = cut([cleaner.clean([text])[0] for text in batch["text"]])
        ids = tokenizer(texts, return_attention_mask=False)["input_ids"]
        return {"input_ids": [[*row, tokenizer.eos_token_id] for row in ids]}

    rows = datasets.load_dataset("json", data_files=recipe.data.train[0].path, split="train")
    found = rows.map(
        prepare,
        batched=True,
        batch_size=_BATCH,
        num_proc=cores,
        remove_columns=rows.column_names,
        # Else `map` hashes the tokenizer and the dictionary to look for an earlier result.
        new_fingerprint=f"bench{os.getpid()}",
    )
    tokens = sum(len(column) for column in _ids(found))
    files = [Path(file["filename"]) for file in found.cache_files]
    told = {
        "rows": len(found),
        "tokens": tokens,
        "bytes": sum(file.stat().st_size for file in files),
    }
    result.write_text(json.dumps(told), encoding="utf-8")


def _with_jieba() -> Callable[[Sequence[str]], list[str]]:
    import jieba

    jieba.setLogLevel(logging.WARNING)

    def cut(texts: Sequence[str]) -> list[str]:
        return [" ".join(word for word in jieba.cut(text) if word.strip()) for text in texts]

    return cut


def _ids(found: Any) -> list[Any]:
    """The token ids of all rows, in the chunks in which they lie mapped into memory."""
    return [chunk.flatten() for chunk in found.data.column("input_ids").chunks]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
