"""`shoal export`: an adapter, a merged model or a GGUF file of a run, in a folder that appears
whole or not at all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from adapters import model_card
from adapters.base_ref import base_ref, locate
from adapters.checkpoint_folder import adapter_folder, check_base, read_origin
from adapters.exported import (
    CARD,
    RECIPE,
    copy_adapter,
    copy_licences,
    copy_tokenizer,
    is_export,
    name_base,
    seal,
)
from adapters.quiet import quiet_transformers
from launcher.exporting import gguf
from launcher.exporting.exportable import Exportable, facts, labels, probes
from launcher.plan.report import bytes_text
from launcher.terminal import Display
from recipes.address import is_address
from recipes.errors import RecipeError, StorageError
from recipes.files import existing, whole_folder

if TYPE_CHECKING:
    from adapters.merge import Merged

_ROWS, _TOKENS = 3, 64
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_SIZE = re.compile(r"[1-9]\d*(KB|MB|GB)")
_DTYPE_OF = {"bf16": "bfloat16", "f16": "float16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to export to, and by what name of the base others will find it."""

    folder: Path
    hub_id: str | None


def destination(to: str | None, name: str, *, force: bool) -> Path:
    """The folder to export to, `exports/<name>` by default. With `force` an earlier export there is
    replaced, nothing else.

    Raises `RecipeError` for an address, `StorageError` when the folder is taken.
    """
    if to is not None and is_address(to):
        raise RecipeError(f"--to {to}: can only be a folder. Copy it to there afterwards")
    folder = (Path(to).expanduser() if to is not None else Path("exports", name)).resolve()
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"--to {folder}: is a file. Name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not force:
            raise StorageError(
                f"{folder}: is there already. Name another folder with --to, or replace this one "
                "with --force"
            )
        if not is_export(folder):
            raise StorageError(
                f"{folder}: was not exported by shoal, and --force would delete what is in it. "
                "Name another folder with --to"
            )
    return folder


def check_shard_size(size: str) -> None:
    """Raises `RecipeError` when transformers would not know what is meant."""
    if not _SIZE.fullmatch(size):
        raise RecipeError(f"--max-shard-size {size}: is no size. Write it as 5GB, 500MB or 100KB")


def check_causal(source: Exportable) -> None:
    """Raises `RecipeError` when there is no text to be generated from a GGUF file."""
    if source.recipe.task != "causal_lm":
        raise RecipeError(
            f"--gguf: {source.name} is a {source.recipe.task}, and llama.cpp has no heads of that "
            "kind. Export it with --merged"
        )


def export_adapter(source: Exportable, target: Target) -> None:
    """The adapter as PEFT opens it; neither the base nor torch is needed."""
    with _appearing(target.folder) as folder:
        copy_adapter(source.checkpoint, folder)
        if target.hub_id is not None:
            name_base(folder, target.hub_id)
        _finish(folder, source, target, model_card.adapter_card(facts(source, target.hub_id)))


def export_merged(
    source: Exportable, target: Target, display: Display, *, dtype: str | None, shard: str
) -> None:
    """The adapter merged into its base, as transformers alone opens it.

    Raises `CheckpointError` on another base, `AdapterError` when there is no merge.
    """
    base = _base(source)
    with quiet_transformers():
        dtype = _prepare(source, base, target.folder, dtype, display)
        merged = _merge(source, base, display)
        with _appearing(target.folder) as folder:
            _write(merged, folder, source, base, dtype=dtype, shard=shard, display=display)
            card = model_card.merged_card(
                facts(source, target.hub_id), dtype=dtype, difference=merged.difference
            )
            _finish(folder, source, target, card)


def export_gguf(
    source: Exportable,
    target: Target,
    display: Display,
    *,
    outtype: str,
    converter: Sequence[str],
) -> str:
    """The merged model as one file for llama.cpp: its name.

    Raises `ClusterError` when the converter fails, and what `export_merged` raises.
    """
    base = _base(source)
    file = f"{source.name}-{outtype}.gguf"
    with quiet_transformers():
        # As wide as can be where the converter rounds, so that numbers are rounded once.
        dtype = _DTYPE_OF.get(outtype, "float32")
        _prepare(source, base, target.folder, dtype, display, beside=gguf.OUTTYPES[outtype])
        merged = _merge(source, base, display)
        with _appearing(target.folder) as folder:
            model = folder / ".merged"
            model.mkdir()
            _write(merged, model, source, base, dtype=dtype, shard="5GB", display=display)
            display.phase("converting", 0, 0)
            gguf.convert(converter, model, folder / file, outtype, name=source.name)
            display.phase("converting", 1, 1)
            shutil.rmtree(model)
            copy_licences(base, folder)
            card = model_card.gguf_card(
                facts(source, target.hub_id),
                file=file,
                outtype=outtype,
                difference=merged.difference,
            )
            _finish(folder, source, target, card)
    return file


def _base(source: Exportable) -> Path:
    """The folder of the base that the checkpoint was trained on. Raises `CheckpointError` when what
    lies there now is another."""
    base = source.recipe.base
    folder = locate(base, Path(source.recipe.storage.cache))
    check_base(source.checkpoint, base_ref(base.source, base.revision, folder))
    return folder


def _prepare(
    source: Exportable,
    base: Path,
    target: Path,
    dtype: str | None,
    display: Display,
    *,
    beside: float = 0.0,
) -> str:
    """What can be found wrong before the base is read: in which dtype to write.

    `beside` are bytes that each number takes in what else is written.
    """
    from adapters.merge import check_mergeable, stored

    check_mergeable(adapter_folder(source.checkpoint), base)
    labels(source)
    kept = stored(base)
    dtype = dtype or kept.default_dtype(base)
    needed = int(kept.numbers * (_BYTES[dtype] + beside))
    free = shutil.disk_usage(existing(target)).free
    if needed > free:
        raise StorageError(
            f"{target}: there is room for {free:,} bytes, and the model takes {needed:,}. Name "
            "another folder with --to"
        )
    in_memory, available = 4 * kept.numbers, psutil.virtual_memory().available
    if in_memory > available:
        display.line(
            f"Merging takes {bytes_text(in_memory)} of memory, and {bytes_text(available)} are free"
        )
    return dtype


def _merge(source: Exportable, base: Path, display: Display) -> Merged:
    from adapters.merge import merge

    display.phase("merging", 0, 0)
    merged = merge(
        base,
        adapter_folder(source.checkpoint),
        task=source.recipe.task,
        labels=labels(source),
        multi_label=read_origin(source.checkpoint).multi_label,
        rows=probes(source, rows=_ROWS, tokens=_TOKENS),
        allow_pickle=source.recipe.base.allow_pickle,
        new_tokens=source.recipe.base.new_tokens,
    )
    display.phase("merging", 1, 1)
    return merged


def _write(
    merged: Merged,
    folder: Path,
    source: Exportable,
    base: Path,
    *,
    dtype: str,
    shard: str,
    display: Display,
) -> None:
    from adapters.merge import write

    display.phase("writing", 0, 0)
    write(merged, folder, base=base, task=source.recipe.task, dtype=dtype, shard=shard)
    copy_tokenizer(base, source.checkpoint, folder)
    copy_licences(base, folder)
    display.phase("writing", 1, 1)


def _finish(folder: Path, source: Exportable, target: Target, card: str) -> None:
    """What all that is exported holds beside it."""
    shutil.copyfile(source.run_dir / "recipe.yaml", folder / RECIPE)
    (folder / CARD).write_text(card, encoding="utf-8")
    seal(folder, source.checkpoint, scores=source.after, base=target.hub_id)


@contextmanager
def _appearing(final: Path) -> Iterator[Path]:
    """As `whole_folder`, and without a trace of the folders above it when something fails."""
    made = [folder for folder in final.parents if not folder.exists()]
    try:
        with whole_folder(final, replace=True) as folder:
            yield folder
    except BaseException:
        for above in made:
            with suppress(OSError):
                above.rmdir()
        raise
