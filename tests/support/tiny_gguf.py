"""The tiny Llama as a GGUF file, written as llama.cpp's own converter writes one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize
from transformers import LlamaForCausalLM

from support.tiny import CHAT_TEMPLATE

_LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789<|>_", "Ġ"]
_SPECIAL = ["<pad>", "<unk>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
_MERGES = [("w", "0"), ("w", "1"), ("w", "2"), ("Ġ", "w0"), ("Ġ", "w1")]
_OF_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(llama: Path, file: Path, *, quantization: str = "F32", without: str = "") -> Path:
    """The Llama of a folder, its matrices quantised; a tensor may be left out by its name."""
    model = LlamaForCausalLM.from_pretrained(llama)
    config = model.config
    writer = GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, config.vocab_size)
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        if name.endswith("q_proj.weight"):
            values = _turn(values, config.num_attention_heads)
        elif name.endswith("k_proj.weight"):
            values = _turn(values, config.num_key_value_heads)
        kind = GGMLQuantizationType[quantization if values.ndim > 1 else "F32"]
        if name != without:
            writer.add_tensor(_named(name), quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer: GGUFWriter, size: int) -> None:
    tokens = [*_SPECIAL, *_LETTERS, *(left + right for left, right in _MERGES)]
    kinds = [TokenType.CONTROL] * len(_SPECIAL) + [TokenType.NORMAL] * (len(tokens) - len(_SPECIAL))
    unused = size - len(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*tokens, *(f"[unused{number}]" for number in range(unused))])
    writer.add_token_types([*kinds, *[TokenType.UNUSED] * unused])
    writer.add_token_merges([f"{left} {right}" for left, right in _MERGES])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_chat_template(CHAT_TEMPLATE)


def _turn(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp rotates neighbours where transformers rotates halves: rows in another order."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _named(name: str) -> str:
    outer = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in outer:
        return outer[name]
    _, _, layer, *rest = name.split(".")
    return f"blk.{layer}.{_OF_LAYER['.'.join(rest[:-1])]}.weight"
