"""What a rank keeps for the backward pass, and the logits: bytes of one micro-batch.

Counted from what autograd saves. A frozen linear layer saves nothing, since only its input has a
gradient; LoRA's A saves its input, which the targets that read the same tensor share. Below the
first adapted layer nothing is saved at all. Korthikanti et al. (arXiv:2205.05198, section 4) count
the same way for a model that is trained in full. Dropout keeps a mask of bytes on a GPU and noise
in the dtype of its input on a CPU (torch, aten/src/ATen/native/Dropout.cpp), where attention with
dropout has no kernel of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from launcher.plan.adapter_shape import AdapterShape
from launcher.plan.base_shape import Widths

_QKV = ("q_proj", "k_proj", "v_proj", "qkv_proj", "query", "key", "value", "c_attn")
_ATTENTION_OUT = ("o_proj", "out_proj")
_MLP_IN = ("gate_proj", "up_proj", "gate_up_proj", "c_fc", "fc1", "dense_h_to_4h")
_MLP_OUT = ("down_proj", "fc2", "dense_4h_to_h")


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """The largest one: rows filled up to the same number of tokens."""

    rows: int
    tokens_per_row: int
    columns: int
    """Positions of each row for which logits are computed."""

    @property
    def tokens(self) -> int:
        return self.rows * self.tokens_per_row


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """How a rank computes."""

    element_bytes: int
    """Of base and activations: 4 for float32, 2 for bfloat16."""
    on_gpu: bool
    eager_attention: bool
    fused_loss: bool
    """Head and cross-entropy in one, which never has all logits."""
    gradient_checkpointing: bool
    dropout: bool
    """Of the adapter's inputs."""
    packing: bool
    """Several samples in a row: their mask makes attention repeat keys and values for each head."""
    quantization: str = "none"
    double_quantization: bool = True


def kept_bytes(
    widths: Widths, adapter: AdapterShape, batch: MicroBatch, precision: Precision
) -> int:
    """All that is kept between forward and backward, and the gradients of one layer's activations
    that exist beside it when the backward pass begins."""
    layers = range(adapter.first_layer, widths.layers)
    each = [_layer_bytes(widths, adapter, layer, batch, precision) for layer in layers]
    passing = batch.tokens * (_mlp_kept(widths) + 2 * widths.hidden) * precision.element_bytes
    if precision.gradient_checkpointing:
        # Only the input of every layer, and one layer in full while it is computed again.
        inputs = widths.layers * batch.tokens * widths.hidden * precision.element_bytes
        return inputs + max(each, default=0) + passing
    return sum(each) + passing


def _layer_bytes(
    widths: Widths, adapter: AdapterShape, layer: int, batch: MicroBatch, precision: Precision
) -> int:
    width = precision.element_bytes
    # Inputs of the two norms; RMSNorm computes in float32 and keeps that copy.
    total = batch.tokens * 2 * widths.hidden * 4
    # Queries, keys, values, the output, and a float32 sum for each head.
    keys = widths.attention if precision.packing else widths.keys
    total += batch.tokens * (2 * (widths.attention + keys) * width + 4 * widths.heads)
    total += batch.tokens * _mlp_kept(widths) * width
    total += batch.tokens * _adapter_inputs(widths, adapter, layer, precision)
    noise = 1 if precision.on_gpu else width
    if widths.hidden_dropout:
        total += batch.tokens * 2 * widths.hidden * noise
    if precision.eager_attention or (widths.attention_dropout and not precision.on_gpu):
        # Written out: scaled queries and keys, and for all pairs of tokens the weights, with
        # dropout also its noise and what it leaves of them.
        pairs = batch.rows * widths.heads * batch.tokens_per_row**2
        total += batch.tokens * 2 * widths.attention * width
        total += pairs * (width + (width + noise if widths.attention_dropout else 4))
    return total


def _mlp_kept(widths: Widths) -> int:
    """Elements a token: the gate before and after its activation and what it is multiplied with,
    or the one input of an ungated activation."""
    return 3 * widths.intermediate if widths.gated else widths.intermediate


def _adapter_inputs(widths: Widths, adapter: AdapterShape, layer: int, precision: Precision) -> int:
    """Bytes a token that the adapters of a layer keep: their inputs, and what A makes of them."""
    width = precision.element_bytes
    modules = [module for module in adapter.adapted if module.layer == layer]
    mids = sum(adapter.rank * 4 for _ in modules)
    if precision.dropout:
        # Each has a copy and a mask of its own.
        noise = 1 if precision.on_gpu else width
        return mids + sum(module.inputs * (width + noise) for module in modules)
    sizes: Mapping[tuple[str, ...], int] = {
        _QKV: widths.hidden,
        _ATTENTION_OUT: widths.attention,
        _MLP_IN: widths.hidden,
        _MLP_OUT: widths.intermediate,
    }
    known = {name for names in sizes for name in names}
    shared = sum(size for names, size in sizes.items() if adapter.adapts(layer, names))
    others = sum(m.inputs for m in modules if m.name.rpartition(".")[2] not in known)
    return mids + (shared + others) * width


def holes_bytes(adapter: AdapterShape, batch: MicroBatch, precision: Precision) -> int:
    """Host memory that was freed in the forward pass and is not used again, without a GPU.

    glibc before 2.38 does not give a freed block to an aligned request of its own size, and all of
    torch's are aligned (https://sourceware.org/bugzilla/show_bug.cgi?id=14581). Each adapted module
    makes and frees three tensors of the size of its output around the one that is kept; two of
    them lie side by side, and what they leave is large enough to be used once more.
    """
    if precision.on_gpu or precision.gradient_checkpointing or adapter.in_place:
        return 0
    outputs = sum(module.outputs for module in adapter.adapted)
    return 2 * batch.tokens * outputs * precision.element_bytes


def logits_bytes(widths: Widths, batch: MicroBatch, precision: Precision, *, learns: bool) -> int:
    """Logits of a causal model, in float32 once more if they are not, their log-softmax, and while
    something learns the gradients of both (torch.nn.functional.cross_entropy)."""
    if precision.fused_loss and learns:
        return 0
    copies = precision.element_bytes + 4 + (4 if precision.element_bytes < 4 else 0)
    copies += 4 if learns else 0
    return batch.rows * batch.columns * widths.vocabulary * copies


def passing_bytes(widths: Widths, batch: MicroBatch, precision: Precision) -> int:
    """What exists at once in a forward pass that keeps nothing."""
    elements = _mlp_kept(widths) + 4 * widths.attention + 2 * widths.hidden
    return batch.tokens * elements * precision.element_bytes
