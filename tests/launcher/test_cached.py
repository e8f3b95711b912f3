"""What lies in the cache, what may go, and that nothing else does."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from filelock import FileLock

from launcher.cached.command import list_cache, remove_from_cache
from launcher.cached.entries import partial_entries, prepared_entries
from launcher.cached.removal import Wanted, choose, seconds_of, why_kept
from launcher.cached.table import ago_text
from launcher.prepare.usage import note_run, note_use, noted_runs
from recipes.errors import RecipeError, StorageError

DAY_S = 86400.0


def make(cache: Path, key: str, *, days: float = 0.0) -> Path:
    """A prepared folder that was last used so long ago."""
    folder = cache / "prepared" / key
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "shard_00000.arrow").write_bytes(b"x" * 1000)
    splits = {"train": {"samples": 9, "tokens": 90}, "held_out": {"samples": 1, "tokens": 10}}
    (folder / "manifest.json").write_text(json.dumps({"recipe": "mine", "splits": splits}))
    then = time.time() - days * DAY_S
    for path in (folder / "manifest.json", folder):
        os.utime(path, (then, then))
    return folder


def make_run(storage: Path, name: str) -> Path:
    run_dir = storage / name
    run_dir.mkdir(parents=True)
    (run_dir / "recipe.yaml").write_text("task: causal_lm\n")
    return run_dir


def keys(cache: Path) -> set[str]:
    return {folder.name for folder in (cache / "prepared").iterdir()}


def remove(cache: Path, wanted: Wanted, **options: Any) -> None:
    remove_from_cache(cache, wanted, **{"dry_run": False, "yes": True, "force": False} | options)


def test_a_listing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    old, new = make(tmp_path, "aa11" + "0" * 28, days=40), make(tmp_path, "bb22" + "0" * 28)
    note_run(old, make_run(tmp_path / "runs", "first"))
    note_run(old, make_run(tmp_path / "runs", "second"))
    note_run(old, tmp_path / "runs" / "second")
    note_run(new, tmp_path / "runs" / "gone")
    assert [run.name for run in noted_runs(old)] == ["first", "second"]
    (tmp_path / "preparing" / "cc33" / "work").mkdir(parents=True)
    (tmp_path / "samples" / "reviews").mkdir(parents=True)
    (tmp_path / "samples" / "reviews" / "rows.jsonl").write_text("{}\n")
    with FileLock(tmp_path / "runs" / "second" / ".lock"):
        list_cache(tmp_path, Wanted(), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split("  ") for line in lines]
    prepared = [[cell.strip() for cell in row if cell] for row in rows if "mine" in row]
    assert [row[0] for row in prepared] == ["bb2200000000", "aa1100000000"]
    assert prepared[1][1:4] == ["mine", "10", "100"]
    assert prepared[1][-3:] == ["40 days ago", "40 days ago", "first, second (running)"]
    assert prepared[0][-1] == "none"
    assert any(line.startswith("cc33") and line.endswith("interrupted") for line in lines)
    assert any("reviews" in line and line.endswith("3 B") for line in lines)
    list_cache(tmp_path, Wanted(unused_s=30 * DAY_S), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [entry["key"] for entry in told["prepared"]] == [old.name]
    assert told["partial"] == told["others"] == []


def test_a_use_is_noted(tmp_path: Path):
    folder = make(tmp_path, "aa11", days=40)
    assert prepared_entries(tmp_path)[0].used < time.time() - 39 * DAY_S
    note_use(folder)
    assert prepared_entries(tmp_path)[0].used > time.time() - DAY_S
    assert prepared_entries(tmp_path)[0].made < time.time() - 39 * DAY_S


def test_what_was_not_used_for_long_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    old = make(tmp_path, "aa11", days=40)
    new = make(tmp_path, "bb22")
    note_run(old, make_run(tmp_path / "runs", "ended"))
    wanted = Wanted(unused_s=seconds_of("30d"))
    remove(tmp_path, wanted, dry_run=True)
    assert keys(tmp_path) == {"aa11", "bb22"}
    assert "Would remove: aa11 (prepared by mine" in capsys.readouterr().out
    with pytest.raises(RecipeError, match="--yes"):
        remove(tmp_path, wanted, yes=False)
    remove(tmp_path, wanted)
    assert keys(tmp_path) == {new.name}
    assert noted_runs(old) == []
    with pytest.raises(RecipeError, match="names nothing"):
        remove(tmp_path, Wanted())


def test_what_a_run_uses_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = make(tmp_path, "aa11")
    run_dir = make_run(tmp_path / "runs", "mine")
    note_run(folder, run_dir)
    wanted = Wanted(keys=("aa",))
    with FileLock(run_dir / ".lock"):
        with pytest.raises(typer.Exit):
            remove(tmp_path, wanted)
        assert keys(tmp_path) == {"aa11"}
        assert "mine (running)" in capsys.readouterr().out
        remove(tmp_path, wanted, force=True)
    assert keys(tmp_path) == set()


def test_what_is_being_made_stays_whatever_is_said(tmp_path: Path):
    for key in ("aa11", "bb22"):
        (tmp_path / "preparing" / key / "work").mkdir(parents=True)
    (tmp_path / "locks").mkdir()
    with FileLock(tmp_path / "locks" / "aa11.lock"):
        remove(tmp_path, Wanted(partial=True), force=True)
        assert [entry.key for entry in partial_entries(tmp_path)] == ["aa11"]
        with pytest.raises(typer.Exit):
            remove(tmp_path, Wanted(keys=("aa11",)), force=True)
        # Somebody begins between the look and the removal.
        from launcher.cached import removal

        made = partial_entries(tmp_path)[0]
        assert why_kept(made) == "is being prepared now"
        with pytest.raises(StorageError, match="is being prepared now"):
            removal.remove(tmp_path, made)
    assert [(entry.key, entry.is_made) for entry in partial_entries(tmp_path)] == [("aa11", False)]
    remove(tmp_path, Wanted(partial=True))
    assert partial_entries(tmp_path) == []


def test_what_is_being_made_is_listed_while_its_files_come_and_go(tmp_path: Path):
    folder = tmp_path / "preparing" / "aa11"
    (folder / "work").mkdir(parents=True)
    (folder / "work" / "kept.json").write_text("{}")
    os.utime(folder / "work" / "kept.json", (2e9, 2e9))
    # As one that was renamed since it was listed.
    (folder / "work" / ".kept.json.01234567").symlink_to("gone")
    [entry] = partial_entries(tmp_path)
    assert (entry.key, entry.bytes, entry.changed) == ("aa11", 2, 2e9)


def test_a_removal_that_was_interrupted_leaves_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make(tmp_path, "aa11")

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("launcher.cached.removal.shutil.rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        remove(tmp_path, Wanted(keys=("aa11",)))
    monkeypatch.undo()
    assert prepared_entries(tmp_path) == []
    remove(tmp_path, Wanted(partial=True))
    assert keys(tmp_path) == set()


def test_a_key_by_its_beginning(tmp_path: Path):
    for key in ("aa11", "aa22", "aa"):
        make(tmp_path, key)
    entries = prepared_entries(tmp_path)

    def chosen(*begun: str) -> list[str]:
        return sorted(entry.key for entry in choose(Wanted(keys=begun), entries, [], 0.0)[0])

    assert chosen("aa1") == ["aa11"]
    assert chosen("aa") == ["aa"]
    assert chosen("aa1", "aa22") == ["aa11", "aa22"]
    with pytest.raises(RecipeError, match="several keys begin so: aa, aa11, aa22"):
        chosen("a")
    with pytest.raises(RecipeError, match="zz: no data"):
        chosen("zz")


@pytest.mark.parametrize(("text", "seconds"), [("12h", 43200), ("30d", 2592000), ("1.5w", 907200)])
def test_durations(text: str, seconds: float):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["30", "d", "-1d", "3 months"])
def test_no_durations(text: str):
    with pytest.raises(RecipeError, match="12h, 30d, 4w"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "just now"), (600, "10 minutes ago"), (7200, "2 hours ago"), (3 * DAY_S, "3 days ago")],
)
def test_ages(seconds: float, text: str):
    assert ago_text(seconds) == text
