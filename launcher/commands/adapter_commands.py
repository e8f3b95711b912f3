"""Commands on what was trained: take it out of the house, and see what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from launcher.commands.arguments import OverridesArgument, RunArgument
from launcher.commands.exits import interruptible
from recipes.errors import RecipeError

if TYPE_CHECKING:
    from launcher.exporting.export import Target
    from launcher.exporting.exportable import Exportable

commands = typer.Typer()

What = Literal["adapter", "merged", "gguf"]


@commands.command()
def export(
    run: RunArgument,
    overrides: OverridesArgument = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="The adapter, as PEFT opens it over its base.")
    ] = False,
    merged: Annotated[
        bool, typer.Option("--merged", help="Merged into its base, as transformers opens it.")
    ] = False,
    gguf: Annotated[
        bool, typer.Option("--gguf", help="Merged, as one file for llama.cpp.")
    ] = False,
    to: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Default: exports/RUN-adapter and so on.")
    ] = None,
    step: Annotated[
        int | None, typer.Option(help="Of this checkpoint; left out, of the newest.", min=1)
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Of a merged model; left out, that of the base's files."),
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Largest file of a merged model; 5GB.")
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Of a GGUF file: f32, f16, bf16 or q8_0.")
    ] = None,
    converter: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="llama.cpp's convert_hf_to_gguf.py, as you run it."),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="Hub id of the base, for a base that was a folder."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
) -> None:
    """Export a run's newest adapter: as it is, merged into its base, or as a file for llama.cpp.

    What is written was read back and compared; it appears whole or not at all.
    """
    what = _one_of(adapter=adapter, merged=merged, gguf=gguf)
    _check_options(
        what, dtype=dtype, max_shard_size=max_shard_size, quantize=quantize, converter=converter
    )
    from launcher.exporting import gguf as llama_cpp
    from launcher.exporting.export import Target, check_shard_size, destination
    from launcher.exporting.exportable import check_hub_id, exportable
    from launcher.records import runs

    if base_model is not None:
        check_hub_id(base_model)
    outtype, shard = quantize or "bf16", max_shard_size or "5GB"
    llama_cpp.check_outtype(outtype)
    check_shard_size(shard)
    command = llama_cpp.find_converter(converter) if what == "gguf" else None
    with interruptible():
        run_dir = runs.find(run, overrides or [])
        source = exportable(run_dir, overrides or [], step)
        made: What = "merged" if what == "gguf" and command is None else what
        folder = destination(to, f"{source.name}-{made}", force=force)
        target = Target(folder=folder, hub_id=base_model)
        if what == "gguf":
            _gguf(source, target, outtype, command)
        elif what == "merged":
            _merged(source, target, dtype, shard)
        else:
            _adapter(source, target)


def _one_of(**wanted: bool) -> What:
    chosen = [name for name, is_wanted in wanted.items() if is_wanted]
    if len(chosen) != 1:
        raise RecipeError("shoal export: say what to export: --adapter, --merged or --gguf")
    return chosen[0]  # type: ignore[return-value]


def _check_options(what: What, **given: str | None) -> None:
    """An option that would do nothing is told."""
    belongs = {
        "dtype": "merged",
        "max_shard_size": "merged",
        "quantize": "gguf",
        "converter": "gguf",
    }
    for name, value in given.items():
        if value is not None and belongs[name] != what:
            option = name.replace("_", "-")
            raise RecipeError(f"--{option} {value}: is for --{belongs[name]}, not for --{what}")


def _adapter(source: Exportable, target: Target) -> None:
    from launcher.exporting.export import export_adapter

    export_adapter(source, target)
    typer.echo(f"Exported the adapter of step {source.step} to {target.folder}")


def _merged(source: Exportable, target: Target, dtype: str | None, shard: str) -> None:
    from launcher.exporting.export import export_merged
    from launcher.terminal import open_display

    with open_display() as display:
        export_merged(source, target, display, dtype=dtype, shard=shard)
    typer.echo(f"Exported the merged model of step {source.step} to {target.folder}")


def _gguf(source: Exportable, target: Target, outtype: str, converter: list[str] | None) -> None:
    """Without the converter, the merged model and what to type; the exit status then is 1."""
    from launcher.exporting import gguf
    from launcher.exporting.export import check_causal, export_gguf
    from launcher.terminal import open_display

    check_causal(source)
    if converter is not None:
        with open_display() as display:
            file = export_gguf(source, target, display, outtype=outtype, converter=converter)
        typer.echo(f"Exported step {source.step} to {target.folder / file}")
        return
    _merged(source, target, None, "5GB")
    typer.echo(
        f"shoal: error: there is no GGUF file yet: {gguf.SCRIPT} of llama.cpp, which makes them, "
        "is not on the PATH. Make one of the merged model with:",
        err=True,
    )
    for line in gguf.by_hand(target.folder, f"{source.name}-{outtype}.gguf", outtype):
        typer.echo(f"  {line}", err=True)
    raise typer.Exit(1)


@commands.command()
def adapters(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]…", help="Folders or addresses; left out, ./runs and ./exports."
        ),
    ] = None,
) -> None:
    """List the adapters that runs have saved and that were exported, by their base."""
    from launcher.exporting import adapter_listing
    from launcher.terminal import open_display

    found = adapter_listing.listed(paths or ["runs", "exports"], given=bool(paths))
    if found.adapters:
        open_display().table("", adapter_listing.COLUMNS, adapter_listing.rows(found.adapters))
    for line in adapter_listing.remarks(found):
        typer.echo(line)
