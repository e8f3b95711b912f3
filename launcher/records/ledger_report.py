"""What `shoal ledger` tells."""

from __future__ import annotations

import json
from pathlib import Path

from launcher.records.epochs import Epoch, epochs_of, find_sample
from recipes.errors import DataError
from trainer.ledger import Account, read_ledger
from trainer.split import open_split


def report(run_dir: Path, *, step: int | None, sample: int | None) -> tuple[list[str], bool]:
    """Lines for a person, and whether the ledger proves what it should.

    Raises `DataError` when there is no such step or sample.
    """
    account = read_ledger(run_dir / "ledger")
    if not account.entries:
        raise DataError(f"{run_dir}: has taken no step yet")
    if step is not None:
        return _about_step(run_dir, account, step), True
    if sample is not None:
        return _about_sample(run_dir, account, sample), True
    return _about_all(account)


def _about_step(run_dir: Path, account: Account, step: int) -> list[str]:
    if step > len(account.entries):
        raise DataError(f"{run_dir}: has taken {len(account.entries)} steps, not {step}")
    entry = account.entries[step - 1]
    lines = [f"step {step}, batch {entry.batch}:"]
    for row, ids in zip(entry.rows, entry.samples, strict=True):
        lines.append(f"  row {row}: {', '.join(str(number) for number in ids)}")
    return lines


def _about_sample(run_dir: Path, account: Account, sample: int) -> list[str]:
    found = find_sample(account.entries, sample)
    if not found:
        raise DataError(f"{run_dir}: no step consumed the sample {sample}")
    steps = ", ".join(str(entry.step) for entry in found)
    lines = [f"sample {sample}: step {steps}"]
    row = next(
        row for row, ids in zip(found[0].rows, found[0].samples, strict=True) if sample in ids
    )
    text = _text(run_dir, row, sample)
    return [*lines, text] if text is not None else lines


def _text(run_dir: Path, row: int, sample: int) -> str | None:
    """A sample as the model sees it; None when the prepared data is gone."""
    events = (run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines()
    prepared = [event for event in map(json.loads, events) if event["event"] == "prepared"]
    if not prepared or not Path(prepared[-1]["folder"]).is_dir():
        return None
    from adapters.base_ref import locate
    from adapters.tokenizer import load_tokenizer
    from recipes.load import load

    recipe = load(run_dir / "recipe.yaml").recipe
    folder = locate(recipe.base, Path(recipe.storage.cache))
    found = open_split(Path(prepared[-1]["folder"]), "train")[row]
    place = found.samples.tolist().index(sample)
    first = int(sum(found.lengths[:place]))
    ids = found.input_ids[first : first + int(found.lengths[place])]
    return str(load_tokenizer(folder, recipe.base.new_tokens).decode(ids.tolist()))


def _about_all(account: Account) -> tuple[list[str], bool]:
    again = f", {account.redone} steps done again" if account.redone else ""
    attempts = "1 attempt" if account.attempts == 1 else f"{account.attempts} attempts{again}"
    lines = [f"{len(account.entries):,} steps in {attempts}; {account.num_rows:,} rows an epoch"]
    epochs = epochs_of(account)
    lines += [_about_epoch(epoch) for epoch in epochs]
    return lines, not any(epoch.repeated or epoch.lost for epoch in epochs)


def _about_epoch(epoch: Epoch) -> str:
    text = f"epoch {epoch.number}{'' if epoch.whole else ' so far'}: {epoch.rows:,} rows, "
    text += f"{epoch.samples:,} samples"
    if epoch.repeated:
        shown = ", ".join(str(sample) for sample in epoch.repeated[:5])
        text += f", {len(epoch.repeated)} of them MORE THAN ONCE ({shown})"
    else:
        text += ", each once"
    if epoch.lost:
        text += f", {epoch.lost} rows LOST"
    if epoch.skipped:
        text += f", {epoch.skipped} rows left out with their batches"
    return text
