"""A merged model as one file for llama.cpp, by llama.cpp's own converter.

No package of the index that is kept up has the converter: `gguf` reads and writes the format, but
what each architecture's tensors are called, and how its tokenizer is told, only llama.cpp's script
knows. So it is run where a person has it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

from cluster.process import CommandError, run
from recipes.errors import ClusterError, RecipeError

OUTTYPES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}
"""What the converter writes by itself, with the bytes that a number takes."""
SCRIPT = "convert_hf_to_gguf.py"
# As llama.cpp, its packages of distributions, and its copies on the index call it.
_NAMES = (SCRIPT, "llama-convert-hf-to-gguf", "convert-hf-to-gguf")
_TIMEOUT_S = 6 * 3600.0
_MAGIC = b"GGUF"


def check_outtype(outtype: str) -> None:
    """Raises `RecipeError` when the converter does not write this."""
    if outtype not in OUTTYPES:
        raise RecipeError(
            f"--quantize {outtype}: llama.cpp's converter writes {', '.join(OUTTYPES)}. For fewer "
            f"bits make bf16, then: llama-quantize FILE.gguf SMALLER.gguf {outtype.upper()}"
        )


def find_converter(given: str | None) -> list[str] | None:
    """The command that converts: as given, or by its names on the PATH; None when it is not here.

    Raises `RecipeError` when what was given cannot be run.
    """
    if given is None:
        found = next(filter(None, map(shutil.which, _NAMES)), None)
        return [found] if found is not None else None
    command = shlex.split(given)
    if not command or shutil.which(command[0]) is None:
        raise RecipeError(
            f"--converter {given}: is no command. Write it as you would type it, such as "
            f"'/opt/llama.cpp/.venv/bin/python /opt/llama.cpp/{SCRIPT}'"
        )
    return command


def convert(converter: Sequence[str], model: Path, file: Path, outtype: str, *, name: str) -> None:
    """Make one file of a merged model, which calls itself `name`.

    Raises `ClusterError` with the converter's last words.
    """
    options = ["--outfile", str(file), "--outtype", outtype, "--model-name", name]
    command = [*converter, str(model), *options]
    try:
        # A converter of its own environment must not see this one's packages.
        run(command, timeout_s=_TIMEOUT_S, without=("PYTHONPATH",))
    except CommandError as error:
        why = _last_word(error.stderr)
        raise ClusterError(f"--converter: `{shlex.join(converter)}` {error.why}: {why}") from error
    _check(file, converter)


def _last_word(stderr: str) -> str:
    """The line that tells what was wrong; a bar of its progress may come after it."""
    lines = stderr.splitlines()
    errors = [line for line in lines if re.match(r"\w+(Error|Exception): ", line)]
    return (errors or lines or ["it said nothing"])[-1]


def _check(file: Path, converter: Sequence[str]) -> None:
    """The file begins as the format says: a magic word, a version, the number of its tensors."""
    header = _first_bytes(file, 16)
    if len(header) < 16 or header[:4] != _MAGIC or struct.unpack("<q", header[8:])[0] < 1:
        raise ClusterError(
            f"--converter: `{shlex.join(converter)}` ended well, but {file} holds no model"
        )


def by_hand(model: Path, file: str, outtype: str) -> list[str]:
    """What a person types where the converter is not yet."""
    return [
        "git clone https://github.com/ggml-org/llama.cpp",
        "python -m venv llama.cpp/.venv",
        "llama.cpp/.venv/bin/pip install -r "
        "llama.cpp/requirements/requirements-convert_hf_to_gguf.txt",
        f"llama.cpp/.venv/bin/python llama.cpp/{SCRIPT} {shlex.quote(str(model))} "
        f"--outfile {shlex.quote(file)} --outtype {outtype}",
    ]


def _first_bytes(file: Path, count: int) -> bytes:
    if not file.is_file():
        return b""
    with file.open("rb") as stream:
        return stream.read(count)
