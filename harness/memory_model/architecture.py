"""config.json alone → the architecture that mlx-lm would build from it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from harness.errors import ModelError
from harness.escape import visible
from harness.memory_model.families import (
    FAMILIES,
    Family,
    attention_linears,
    attention_of,
    dense_block,
    expert_block,
    hybrid_layers,
)
from harness.memory_model.fields import FIX, Fields, checked, told
from harness.memory_model.shapes import (
    Architecture,
    Attention,
    FeedForward,
    Layer,
    Linear,
    Quantisation,
)

_STORED: dict[str, Literal[16, 32]] = {"float16": 16, "bfloat16": 16, "float32": 32}
_GEMMA3_OUTER = {"vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4}
"""What mlx_lm/models/gemma3.py lays over the defaults of gemma3_text."""


def is_modelled(config: Mapping[str, Any]) -> bool:
    """Whether the memory model knows this model_type."""
    family = config.get("model_type")
    return isinstance(family, str) and (family in FAMILIES or family in ("gemma3", "gpt2"))


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """The layers, matrices and stored number type of a model, from its config.json.

    Raises:
        ModelError: a model_type that is not modelled, or a value that no model can have.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or not family:
        raise ModelError(f"config.json names no model_type, so nobody knows what it is; {FIX}")
    if family == "gpt2":
        return _gpt2(config)
    if family == "gemma3":
        text = config.get("text_config")
        if not isinstance(text, Mapping):
            raise ModelError(f"config.json of a gemma3 model has no text_config; {FIX}")
        outer = config.get("vocab_size")
        inner = {**text, "vocab_size": 262208 if outer is None else outer}
        return _plain(inner, config, family, FAMILIES["gemma3_text"], _GEMMA3_OUTER)
    if family not in FAMILIES:
        known = ", ".join(sorted([*FAMILIES, "gemma3", "gpt2"]))
        raise ModelError(
            f"the memory of a {visible(family[:80], 40)!r} model is not modelled; measure it "
            f"with `harness vet --depth full`, or choose one of {known}"
        )
    return _plain(config, config, family, FAMILIES[family])


def _plain(
    config: Mapping[str, Any],
    outer: Mapping[str, Any],
    name: str,
    family: Family,
    over: Mapping[str, Any] | None = None,
) -> Architecture:
    """Every family but gpt2; `outer` is the whole config.json, `config` its text part."""
    fields = Fields(config, {**family.defaults, **(over or {})})
    hidden, vocab = fields.number("hidden_size", "width"), fields.number("vocab_size", "vocab")
    count = fields.number("num_hidden_layers", "layers")
    tied = fields.flag("tie_word_embeddings") or name in ("gemma", "gemma2")
    prefix = "language_model.model" if name == "gemma3" else "model"
    embeddings = [(f"{prefix}.embed_tokens", vocab)]
    if not tied:
        embeddings.append((f"{prefix.removesuffix('model')}lm_head", vocab))
    return Architecture(
        family=name,
        layers=_layers(fields, name, family, hidden, count),
        layer_prefix=f"{prefix}.layers",
        hidden=hidden,
        vocab=vocab,
        tied=tied,
        embeddings=tuple(embeddings),
        other_parameters=hidden,
        stored_bits=_stored_bits(outer, config),
        quantisation=_quantisation(outer),
        logit_copies=family.logit_copies,
        dropped="the vision tower" if outer.get("vision_config") else "",
    )


def _layers(
    fields: Fields, name: str, family: Family, hidden: int, count: int
) -> tuple[Layer, ...]:
    if name == "granitemoehybrid":
        return hybrid_layers(fields, family, hidden, count)
    attention = attention_of(fields, family, hidden)
    matrices, norms = attention_linears(attention, fields, family, hidden)

    def build(window: int | None, sparse: bool) -> Layer:
        block, own = (
            _experts(fields, name, hidden)
            if sparse
            else dense_block(fields, family, hidden, fields.number("intermediate_size", "width"))
        )
        return Layer(
            mixer=attention.model_copy(update={"window": window}),
            blocks=(block,),
            linears=(*matrices, *own),
            norms=family.norms,
            other_parameters=norms + family.norms * hidden,
        )

    kinds = list(zip(_windows(fields, name, count), _sparse(fields, name, count), strict=True))
    built = {kind: build(*kind) for kind in dict.fromkeys(kinds)}
    return tuple(built[kind] for kind in kinds)


def _windows(fields: Fields, name: str, count: int) -> list[int | None]:
    """The sliding window of each layer, None where it sees everything."""
    if name in ("gemma3", "gemma3_text"):
        pattern = fields.number("sliding_window_pattern", "layers")
        window = fields.number("sliding_window", "vocab")
        return [None if i % pattern == pattern - 1 else window for i in range(count)]
    # mlx-lm slides the window of a llama or mistral only where layer_types says so.
    kinds = fields.names("layer_types", count) if name in ("llama", "mistral", "smollm3") else None
    if kinds is None or "sliding_attention" not in kinds:
        return [None] * count
    window = fields.number("sliding_window", "vocab")
    return [window if kind == "sliding_attention" else None for kind in kinds]


def _sparse(fields: Fields, name: str, count: int) -> list[bool]:
    """Which layers hold a mixture of experts."""
    if name == "mixtral":
        return [True] * count
    if name != "qwen3_moe":
        return [False] * count
    step = fields.number("decoder_sparse_step", "layers")
    dense = fields.get("mlp_only_layers") or []
    if not isinstance(dense, list | tuple):
        raise ModelError(f"config.json says mlp_only_layers is {told(dense)}, not a list; {FIX}")
    return [i not in dense and (i + 1) % step == 0 for i in range(count)]


def _experts(fields: Fields, name: str, hidden: int) -> tuple[FeedForward, tuple[Linear, ...]]:
    if name == "mixtral":
        return expert_block(
            "block_sparse_moe.switch_mlp",
            "block_sparse_moe.gate",
            hidden,
            fields.number("intermediate_size", "width"),
            fields.number("num_local_experts", "experts"),
            fields.number("num_experts_per_tok", "experts"),
        )
    return expert_block(
        "mlp.switch_mlp",
        "mlp.gate",
        hidden,
        fields.number("moe_intermediate_size", "width"),
        fields.number("num_experts", "experts"),
        fields.number("num_experts_per_tok", "experts"),
    )


def _gpt2(config: Mapping[str, Any]) -> Architecture:
    """GPT-2 with its own key names; mlx-lm's feed-forward is 4 × n_embd wide, whatever n_inner."""
    fields = Fields(config)
    hidden, heads = fields.number("n_embd", "width"), fields.number("n_head", "heads")
    vocab, positions = fields.number("vocab_size", "vocab"), fields.number("n_positions", "vocab")
    if hidden % heads:
        raise ModelError(
            f"config.json divides n_embd {hidden} among {heads} heads, which leaves a rest; {FIX}"
        )
    wide = 4 * hidden
    linears = tuple(
        Linear(name=name, inputs=inputs, outputs=outputs, bias=True, source=source)
        for name, inputs, outputs, source in (
            ("attn.c_attn", hidden, 3 * hidden, "mixer"),
            ("attn.c_proj", hidden, hidden, "attended"),
            ("mlp.c_fc", hidden, wide, "block"),
            ("mlp.c_proj", wide, hidden, "inner"),
        )
    )
    layer = Layer(
        mixer=Attention(heads=heads, kv_heads=heads, head_dim=hidden // heads, joined=True),
        blocks=(FeedForward(width=wide, activation="plain_gelu"),),
        linears=linears,
        other_parameters=4 * hidden,
    )
    return Architecture(
        family="gpt2",
        layers=(layer,) * fields.number("n_layer", "layers"),
        layer_prefix="model.h",
        hidden=hidden,
        vocab=vocab,
        tied=True,
        embeddings=(("model.wte", vocab), ("model.wpe", positions)),
        other_parameters=2 * hidden,
        stored_bits=_stored_bits(config, config),
        quantisation=_quantisation(config),
    )


def _stored_bits(outer: Mapping[str, Any], config: Mapping[str, Any]) -> Literal[16, 32]:
    """Bits of the stored numbers; 16 where the config is silent, as nearly all are today."""
    for section in (outer, config):
        for key in ("torch_dtype", "dtype"):
            found = section.get(key)
            if isinstance(found, str):
                bits = _STORED.get(found.removeprefix("torch."))
                if bits is None:
                    raise ModelError(
                        f"config.json says {key} is {told(found)}; mlx-lm trains float16, "
                        f"bfloat16 and float32"
                    )
                return bits
    return 16


def _quantisation(config: Mapping[str, Any]) -> Quantisation | None:
    """MLX's `quantization` section. Another tool's (a quant_method) is not MLX's packing."""
    section = config.get("quantization") or config.get("quantization_config")
    if section is None:
        return None
    if not isinstance(section, Mapping):
        raise ModelError(f"config.json says quantization is {told(section)}; {FIX}")
    if "bits" not in section or "group_size" not in section:
        return None
    bits, group = _packing(section)
    overrides: dict[str, tuple[int, int] | None] = {}
    for path, own in section.items():
        if isinstance(own, Mapping) and "bits" in own:
            overrides[str(path)] = _packing({"group_size": group, **own})
        elif own is False:
            overrides[str(path)] = None
    return Quantisation(bits=bits, group_size=group, overrides=overrides)


def _packing(section: Mapping[str, Any]) -> tuple[int, int]:
    bits = checked(section["bits"], "quantization bits", "heads")
    group = checked(section["group_size"], "quantization group_size", "heads")
    if bits not in (2, 3, 4, 5, 6, 8) or group not in (16, 32, 64, 128):
        raise ModelError(
            f"config.json is quantised to {bits} bits in groups of {group}, which MLX does not do"
            f" (2, 3, 4, 5, 6 or 8 bits, groups of 16, 32, 64 or 128); {FIX}"
        )
    return bits, group
