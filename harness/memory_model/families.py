"""config.json → the layers that mlx-lm builds from it, one function per kind of block.

Each default is the one of that family's `ModelArgs` in mlx_lm/models (version 0.32), or, where a
config leaves out what mlx-lm then takes from transformers' config class, that class's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from harness.errors import ModelError
from harness.memory_model.fields import FIX, Fields, told
from harness.memory_model.shapes import (
    Activation,
    Attention,
    FeedForward,
    Layer,
    Linear,
    StateSpace,
)


class Family(NamedTuple):
    """How one model_type differs from llama."""

    defaults: Mapping[str, Any] = {}
    attention_bias: bool | None = None
    """True or False where the family fixes it, None where the config says."""
    output_bias: bool | None = None
    """Bias of the attention's output layer; None = like the others."""
    norms: int = 2
    qk_norm: str = ""
    """"head" or "full": width of the norms of queries and keys."""
    fused_projections: bool = False
    """One matrix for q, k and v, and one for gate and up (phi3)."""
    activation: Activation = "swiglu"
    logit_copies: int = 0
    composed: bool = False
    own_head_dim: bool = True
    """False where mlx-lm ignores head_dim and divides the width by the heads."""


_GEMMA3 = {
    # mlx_lm/models/gemma3_text.py; transformers' Gemma3TextConfig has 2304/9216/8/4 for the first
    # ones, and every published config writes those out.
    "hidden_size": 1152,
    "num_hidden_layers": 26,
    "intermediate_size": 6912,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "vocab_size": 262144,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
}

FAMILIES: dict[str, Family] = {
    "llama": Family({"tie_word_embeddings": True}),
    "mistral": Family({"tie_word_embeddings": True}),
    "smollm3": Family({"tie_word_embeddings": True}),
    "qwen2": Family(
        {"tie_word_embeddings": True}, attention_bias=True, output_bias=False, own_head_dim=False
    ),
    "qwen3": Family({}, attention_bias=False, qk_norm="head"),
    "granite": Family({"tie_word_embeddings": True}, own_head_dim=False),
    "olmo2": Family({"tie_word_embeddings": True}, qk_norm="full"),
    "phi3": Family({}, attention_bias=False, fused_projections=True, own_head_dim=False),
    "gemma": Family(
        {"tie_word_embeddings": True, "head_dim": 256}, attention_bias=False, activation="gelu"
    ),
    "gemma2": Family(
        {"tie_word_embeddings": True, "head_dim": 256},
        attention_bias=False,
        norms=4,
        activation="gelu_approx",
        logit_copies=1,
        composed=True,
    ),
    "gemma3_text": Family(
        {"tie_word_embeddings": True, **_GEMMA3},
        attention_bias=False,
        norms=4,
        qk_norm="head",
        activation="gelu_approx",
    ),
    "qwen3_moe": Family({}, attention_bias=False, qk_norm="head"),
    "mixtral": Family({}, attention_bias=False, own_head_dim=False),
    "granitemoehybrid": Family({"tie_word_embeddings": True}, own_head_dim=False),
}


def attention_of(fields: Fields, family: Family, hidden: int) -> Attention:
    """Heads and their width, as mlx-lm derives them."""
    heads = fields.number("num_attention_heads", "heads")
    kv_heads = fields.optional("num_key_value_heads", "heads") or heads
    head_dim = fields.optional("head_dim", "width") if family.own_head_dim else None
    if head_dim is None:
        if hidden % heads:
            raise ModelError(
                f"config.json divides hidden_size {hidden} among {heads} heads, which leaves a "
                f"rest; {FIX}"
            )
        head_dim = hidden // heads
    if heads % kv_heads:
        raise ModelError(
            f"config.json shares {kv_heads} key-value heads among {heads} heads, which leaves a "
            f"rest; {FIX}"
        )
    return Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        normed=bool(family.qk_norm),
        composed=family.composed,
        joined=family.fused_projections,
    )


def attention_linears(
    attention: Attention, fields: Fields, family: Family, hidden: int
) -> tuple[tuple[Linear, ...], int]:
    """The matrices of one attention, and the elements of its norms."""
    bias = family.attention_bias
    bias = fields.flag("attention_bias") if bias is None else bias
    out_bias = bias if family.output_bias is None else family.output_bias
    query, key = attention.query_width, attention.key_width
    outward = Linear(
        name="self_attn.o_proj", inputs=query, outputs=hidden, bias=out_bias, source="attended"
    )
    norms = {
        "": 0,
        "head": 2 * attention.head_dim,
        "full": query + key,
    }[family.qk_norm]
    if family.fused_projections:
        joined = Linear(
            name="self_attn.qkv_proj", inputs=hidden, outputs=query + 2 * key, source="mixer"
        )
        return (joined, outward), norms
    inward = tuple(
        Linear(name=f"self_attn.{n}_proj", inputs=hidden, outputs=w, bias=bias, source="mixer")
        for n, w in (("q", query), ("k", key), ("v", key))
    )
    return (*inward, outward), norms


def dense_block(
    fields: Fields, family: Family, hidden: int, width: int
) -> tuple[FeedForward, tuple[Linear, ...]]:
    """The gated feed-forward block of a dense layer."""
    bias = fields.flag("mlp_bias")
    down = Linear(name="mlp.down_proj", inputs=width, outputs=hidden, bias=bias, source="inner")
    block = FeedForward(width=width, activation=family.activation, joined=family.fused_projections)
    if family.fused_projections:
        both = Linear(name="mlp.gate_up_proj", inputs=hidden, outputs=2 * width, source="block")
        return block, (both, down)
    inward = tuple(
        Linear(name=f"mlp.{n}_proj", inputs=hidden, outputs=width, bias=bias, source="block")
        for n in ("gate", "up")
    )
    return block, (*inward, down)


def expert_block(
    path: str, router: str, hidden: int, width: int, experts: int, per_token: int
) -> tuple[FeedForward, tuple[Linear, ...]]:
    """A mixture of gated experts (mlx-lm's SwitchGLU) with its router, quantised to 8 bits."""
    if per_token > experts:
        raise ModelError(f"config.json sends each token to {per_token} of {experts} experts; {FIX}")

    def stack(name: str, inputs: int, outputs: int, source: str) -> Linear:
        return Linear(
            name=f"{path}.{name}",
            inputs=inputs,
            outputs=outputs,
            experts=experts,
            per_token=per_token,
            source=source,
        )

    linears = (
        Linear(name=router, inputs=hidden, outputs=experts, source="block", bits=8),
        stack("gate_proj", hidden, width, "routed"),
        stack("up_proj", hidden, width, "routed"),
        stack("down_proj", width, hidden, "expert"),
    )
    return FeedForward(width=width, copies=per_token, experts=experts), linears


def state_space(fields: Fields, hidden: int) -> tuple[StateSpace, tuple[Linear, ...], int]:
    """A Mamba-2 mixer: its shape, its matrices, and its other elements."""
    mixer = StateSpace(
        heads=fields.number("mamba_n_heads", "heads"),
        head_dim=fields.number("mamba_d_head", "width"),
        state=fields.number("mamba_d_state", "width"),
        groups=fields.number("mamba_n_groups", "heads"),
        kernel=fields.number("mamba_d_conv", "heads"),
    )
    if mixer.heads % mixer.groups:
        raise ModelError(
            f"config.json shares {mixer.heads} Mamba heads among {mixer.groups} groups, which "
            f"leaves a rest; {FIX}"
        )
    bias = fields.flag("mamba_proj_bias")
    projected = mixer.inner + mixer.conv_width + mixer.heads
    linears = (
        Linear(name="mamba.in_proj", inputs=hidden, outputs=projected, bias=bias, source="mixer"),
        Linear(
            name="mamba.out_proj", inputs=mixer.inner, outputs=hidden, bias=bias, source="attended"
        ),
    )
    convolution = mixer.conv_width * (mixer.kernel + int(fields.flag("mamba_conv_bias")))
    return mixer, linears, convolution + 3 * mixer.heads + mixer.inner


def hybrid_blocks(
    fields: Fields, family: Family, hidden: int
) -> tuple[tuple[FeedForward, ...], tuple[Linear, ...]]:
    """Granite 4's feed-forward part: dense, or a mixture of experts beside a shared one."""
    width = fields.number("intermediate_size", "width")
    experts = 0
    if fields.get("num_local_experts") is not None:
        experts = fields.number("num_local_experts", "experts", zero=True)
    if not experts:
        block, linears = dense_block(fields, family, hidden, width)
        return (block,), linears
    routed, linears = expert_block(
        "block_sparse_moe.switch_mlp",
        "block_sparse_moe.router.layer",
        hidden,
        width,
        experts,
        fields.number("num_experts_per_tok", "experts"),
    )
    shared = fields.number("shared_intermediate_size", "width")
    both, down = "shared_mlp.input_linear", "shared_mlp.output_linear"
    return (routed, FeedForward(width=shared, joined=True)), (
        *linears,
        Linear(name=both, inputs=hidden, outputs=2 * shared, source="block"),
        Linear(name=down, inputs=shared, outputs=hidden, source="inner"),
    )


def hybrid_layers(fields: Fields, family: Family, hidden: int, count: int) -> tuple[Layer, ...]:
    """Granite 4: attention or Mamba mixers, each followed by the same kind of block."""
    kinds = fields.names("layer_types", count)
    if kinds is None:
        raise ModelError(f"config.json has no layer_types, which say what each layer is; {FIX}")
    blocks, linears = hybrid_blocks(fields, family, hidden)
    built: dict[str, Layer] = {}
    for kind in dict.fromkeys(kinds):
        mixer: Attention | StateSpace
        if kind == "mamba":
            mixer, own, extra = state_space(fields, hidden)
        elif kind == "attention":
            mixer = attention_of(fields, family, hidden)
            own, extra = attention_linears(mixer, fields, family, hidden)
        else:
            raise ModelError(
                f"config.json has a layer of type {told(kind)}, and granitemoehybrid knows "
                f"mamba and attention; {FIX}"
            )
        built[kind] = Layer(
            mixer=mixer,
            blocks=blocks,
            linears=(*own, *linears),
            other_parameters=extra + 2 * hidden,
        )
    return tuple(built[kind] for kind in kinds)
