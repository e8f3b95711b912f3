"""What is written down of prepared data: counts that add up, and the digest of every file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.prepare.examples import Example, commonest, line_of
from launcher.prepare.failures import UselessRowsError
from launcher.prepare.key import PREPARE_VERSION
from launcher.prepare.stages.mixture import names
from launcher.prepare.stages.packed import padding
from launcher.prepare.stages.stage import Report
from launcher.prepare.unusable import with_remedy
from recipes.listing import listed
from recipes.recipe import Recipe
from trainer.split import SPLITS

_REASONS_SHOWN = 3
_COUNTS = ("samples", "repeated", "left_out_of_mix", "tokens", "supervised")


def manifest_of(
    recipe: Recipe,
    key: str,
    base_folder: Path,
    entries: Sequence[Mapping[str, Any]],
    units: Sequence[Mapping[str, Any]],
    cleaned: Sequence[Report],
    tokenized: Sequence[Report],
    packed: Mapping[str, Sequence[Report]],
    labels: Sequence[str],
    examples: Mapping[str, Sequence[Example]],
) -> dict[str, Any]:
    """The manifest. `units` are, in order, the place of each unit's file among `entries`, its first
    line there and the number of its source; ids of samples begin with the number of the unit."""
    mixture = names([*recipe.data.train, *recipe.data.held_out])
    by_source = _by_source(mixture, units, cleaned, tokenized)
    splits = {name: _split(recipe, tokenized, packed[name], name) for name in SPLITS}
    rejected: Counter[str] = sum((Counter(r["rejected"]) for r in tokenized), Counter())
    rows_read = sum(report["rows"] for report in cleaned)
    accounted = rejected.total() + sum(
        split["samples"] - split["repeated"] + split["left_out_of_mix"] for split in splits.values()
    )
    assert rows_read == accounted, f"{rows_read} rows were read, {accounted} are accounted for"
    return {
        "version": PREPARE_VERSION,
        "key": key,
        "recipe": recipe.name,
        # To read the tokens again; the base may lie elsewhere by then.
        "base": {
            "source": recipe.base.source,
            "revision": recipe.base.revision,
            "folder": str(base_folder),
            "new_tokens": list(recipe.base.new_tokens),
        },
        "task": recipe.task,
        "sequence_length": recipe.data.sequence_length,
        "packing": recipe.data.packing,
        "labels": list(labels),
        "multi_label": any(report["has_several"] for report in cleaned),
        "only_prepared": sorted({s for report in cleaned for s in report["only_prepared"]}),
        "mixture": mixture,
        "rows_read": rows_read,
        "splits": splits,
        "rejected": _sorted(rejected),
        "failed": _sorted(sum((Counter(r["failed"]) for r in cleaned), Counter())),
        "examples": dict(examples),
        "cut": _sorted(sum((Counter(r["cut"]) for r in tokenized), Counter())),
        "changed": _sorted(sum((Counter(r["changed"]) for r in cleaned), Counter())),
        "by_source": by_source,
        "sources": list(entries),
        "units": list(units),
    }


def _split(
    recipe: Recipe, tokenized: Sequence[Report], packed: Sequence[Report], name: str
) -> dict[str, Any]:
    shards = [report["shard"] for report in packed if report["shard"] is not None]
    counts: Counter[str] = sum((Counter(r["splits"][name]) for r in tokenized), Counter())
    found: dict[str, Any] = {
        "rows": sum(shard["rows"] for shard in shards),
        "samples": counts["samples"] + counts["repeated"],
        "repeated": counts["repeated"],
        "left_out_of_mix": counts["left_out_of_mix"],
        "tokens": sum(shard["tokens"] for shard in shards),
        "supervised": sum(shard["supervised"] for shard in shards),
    }
    if recipe.data.packing:
        found["padding"] = round(padding(shards, recipe.data.sequence_length), 6)
    return {**found, "shards": shards}


def _by_source(
    mixture: Sequence[str],
    units: Sequence[Mapping[str, Any]],
    cleaned: Sequence[Report],
    tokenized: Sequence[Report],
) -> dict[str, Any]:
    """Counts by the name of the source: rows read, samples and tokens by split, rows by reason."""
    found: dict[str, Any] = {
        name: {"rows": 0, **{split: dict.fromkeys(_COUNTS, 0) for split in SPLITS}, "rejected": {}}
        for name in mixture
    }
    for unit, first, second in zip(units, cleaned, tokenized, strict=True):
        told = found[mixture[unit["source"]]]
        told["rows"] += first["rows"]
        for split in SPLITS:
            for name, count in second["splits"][split].items():
                told[split][name] = told[split].get(name, 0) + count
        told["rejected"] = _sorted(Counter(told["rejected"]) + Counter(second["rejected"]))
    return found


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def check_usable(recipe: Recipe, manifest: Mapping[str, Any]) -> None:
    """Raises `UselessRowsError` when there is nothing to train on, or nothing is held out that
    should be."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["rejected"].items())
    files = listed([entry["path"] for entry in manifest["sources"]])
    if manifest["splits"]["train"]["rows"] == 0:
        why = reasons or ("all are held out" if manifest["rows_read"] else "there are no rows")
        raise UselessRowsError(
            f"data.train: none of {manifest['rows_read']} rows can be trained on "
            f"({why}) in {files}{_fix(manifest['rejected'])}{_examples(manifest)}"
        )
    if recipe.data.holds_out and manifest["splits"]["held_out"]["rows"] == 0:
        ways = ("held_out", "held_out_fraction", "held_out_column")
        what = next(name for name in ways if getattr(recipe.data, name))
        raise UselessRowsError(
            f"data.{what}: no usable row is held out ({reasons or 'too few rows'})"
        )


def _examples(manifest: Mapping[str, Any]) -> str:
    """One for each of the commonest reasons: nothing is left that could be inspected."""
    found = commonest(manifest["examples"], manifest["rejected"])[:_REASONS_SHOWN]
    return "".join(f"\n  {reason}, such as {line_of(told[0])}" for reason, told in found)


def _fix(rejected: Mapping[str, int]) -> str:
    """What helps against the commonest reason, where one thing does."""
    reason = max(rejected, key=lambda reason: rejected[reason], default="")
    return with_remedy(reason)
