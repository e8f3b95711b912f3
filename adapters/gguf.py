"""Bases that are one GGUF file: converted once to an ordinary model folder in the cache.

GGUF is a format for running models. transformers reads it slowly, every rank would do so, and what
it makes of it counts as quantised, so that neither training nor stage 3 takes it as it is. torch is
imported only to convert.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from filelock import FileLock

from adapters.base_files import sampled_sha256
from adapters.quiet import quiet_transformers
from recipes.errors import BaseModelError, StorageError
from recipes.files import whole_folder
from recipes.listing import listed

SUFFIX = ".gguf"
_CONFIG_OF_MODEL = "config.json"


def gguf_of(source: Path) -> Path | None:
    """The GGUF file that a path means: itself, or the only one of a folder that holds no other
    model. None when it means none.

    Raises `BaseModelError` when a folder holds several.
    """
    if source.suffix == SUFFIX:
        return source if source.is_file() else None
    if not source.is_dir() or (source / _CONFIG_OF_MODEL).is_file():
        return None
    found = sorted(source.glob(f"*{SUFFIX}"))
    if len(found) > 1:
        names = listed([file.name for file in found])
        raise BaseModelError(
            f"base.source = {source}: holds several GGUF files: {names}. Name one of them. Parts "
            "of one model are joined with llama.cpp's llama-gguf-split --merge"
        )
    return found[0] if found else None


def converted(
    gguf: Path, cache: Path, *, may_convert: bool, tell: Callable[[str], None] = lambda text: None
) -> Path:
    """The model folder made of a GGUF file, in `cache`/converted under the file's digest; made if
    it is not there and that may be done now. Of several processes one does it, the others wait.

    Raises `BaseModelError` when it cannot be, `StorageError` when it cannot be written.
    """
    final = cache / "converted" / sampled_sha256(gguf)[:32]
    if final.is_dir():
        return final
    if not may_convert:
        raise BaseModelError(
            f"base.source = {gguf}: has not been converted to safetensors yet. `shoal prepare` "
            "with the recipe does it"
        )
    require_gguf(f"{gguf.name} is converted to safetensors")
    lock = FileLock(cache / "locks" / f"converted-{final.name}.lock")
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        with lock:
            if final.is_dir():
                return final
            tell(f"Converting {gguf.name} to safetensors, once, into {final}")
            with whole_folder(final) as folder:
                convert(gguf, folder)
                _share(folder)
    except StorageError:
        raise  # says already what cannot be written
    except OSError as error:
        raise StorageError(f"{final}: cannot be written: {error}") from error
    return final


def require_gguf(what: str) -> None:
    """Raises `BaseModelError` when the package that reads GGUF is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise BaseModelError(
            f"{what} with the package gguf, which is not installed: pip install gguf==0.19.0"
        )


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of `gguf` into `folder`: safetensors, tokenizer and chat template.

    float32 where the file's matrices are float32 or float16, which bfloat16 would round; bfloat16
    for what was in fewer bits. Raises `BaseModelError` when it holds nothing that can be a base.
    """
    with quiet_transformers():
        from safetensors import SafetensorError

        model, tokenizer = _read(gguf)
        try:
            model.save_pretrained(folder)
        except SafetensorError as error:  # which hides the OSError that it was
            raise OSError(str(error)) from error
        tokenizer.save_pretrained(folder)


def _read(gguf: Path) -> tuple[Any, Any]:
    """The model and its tokenizer, as transformers makes them of a file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    dtype = torch.float32 if _is_wide(gguf) else torch.bfloat16
    source = {"gguf_file": gguf.name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
        # The GGUF reader draws a progress bar that nothing else can switch off.
        with redirect_stderr(StringIO()):
            # Without dequantize=True the model keeps a quantizer, and cannot be saved or trained.
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                dtype=dtype,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
                **source,
            )
    except (ImportError, KeyError, NotImplementedError, OSError, TypeError, ValueError) as error:
        raise BaseModelError(f"{gguf}: cannot be converted: {error}") from error
    model, info = loaded
    if info["missing_keys"]:
        missing = listed(sorted(info["missing_keys"]))
        raise BaseModelError(f"{gguf}: cannot be converted: it holds no {missing}")
    tokenizer.model_max_length = model.config.max_position_embeddings
    for trace in ("is_local", "local_files_only"):  # of this call, not of the tokenizer
        tokenizer.init_kwargs.pop(trace, None)
    return model, tokenizer


def _is_wide(gguf: Path) -> bool:
    """Whether matrices of a file have more precision than bfloat16."""
    from gguf import GGMLQuantizationType, GGUFReader

    wide = (GGMLQuantizationType.F32, GGMLQuantizationType.F16)
    try:
        tensors = GGUFReader(gguf).tensors
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise BaseModelError(f"{gguf}: is no GGUF file that can be read: {error}") from error
    return any(tensor.tensor_type in wide for tensor in tensors if len(tensor.shape) > 1)


def _share(folder: Path) -> None:
    """Let everyone read the files: safetensors writes them for their owner alone."""
    for file in folder.iterdir():
        file.chmod(file.stat().st_mode | 0o444)
