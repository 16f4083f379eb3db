"""A candidate's config.json → the config.json of a miniature of the same architecture. Pure.

Widths, layers and vocabulary shrink; what decides how the numbers are computed stays: head size,
multipliers, norms, biases, tying, rope base and scaling. Lengths that only act on long texts (the
sliding window, the length that rope scaling starts from) shrink too, so that they act on short
ones.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from harness.checkpoints.safetensors import shown
from harness.errors import ModelError
from harness.twins.lengths import (
    LONGROPE_LENGTH,
    WINDOW,
    active_window,
    longrope_switch,
    shrink_lengths,
)

VOCABULARY = 1024
RESERVED = 16
"""Token ids below this are kept for end-of-text and the like, and are in no text."""
GROUP = 64
"""MLX quantises groups of this many columns, so it divides every width."""
MIN_WIDTH = 256
MAX_WIDTH = 4096
MAX_LAYERS = 24
EXPERTS = 4

_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "hidden": ("hidden_size", "n_embd", "d_model"),
        "layers": ("num_hidden_layers", "n_layer", "n_layers"),
        "heads": ("num_attention_heads", "n_head", "n_heads"),
        "kv_heads": ("num_key_value_heads",),
        "inner": ("intermediate_size", "n_inner"),
    }
)
_CLASS_DEFAULTS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        # What transformers assumes where the published config says nothing.
        "gemma3_text": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256},
        "gemma2": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256},
        "gemma": {"num_key_value_heads": 16, "head_dim": 256},
        "qwen3": {"head_dim": 128},
        "mistral": {"num_key_value_heads": 8},
        "qwen2": {"num_key_value_heads": 32},
    }
)
_PERIODS: Mapping[str, int] = MappingProxyType(
    {
        # The runtimes find a layer's kind by its number in these, so a whole period is kept.
        "gemma2": 2, "gpt_oss": 2, "gemma3_text": 6, "cohere2": 4, "exaone4": 4, "olmo3": 4,
        "smollm3": 4,
    }
)  # fmt: skip
_DROPPED = frozenset(
    {
        "quantization", "quantization_config", "auto_map", "model_file", "_name_or_path",
        "transformers_version", "torch_dtype", "dtype", "task_specific_params",
    }
)  # fmt: skip
_EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")
_EXPERTS_USED = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")
_EXPERT_WIDTHS = (
    "moe_intermediate_size", "shared_intermediate_size", "shared_expert_intermediate_size",
)  # fmt: skip
_TOKEN_KEYS = ("_token_id", "_token_ids", "_token_index")


class Miniature(NamedTuple):
    """A twin's config, and what of the original it stands for."""

    config: dict[str, Any]
    model_type: str
    """Of the language model, e.g. "gemma3_text" where the whole is "gemma3"."""
    kinds: tuple[str, ...]
    """Kinds of layers, in the twin's order."""
    window: int | None
    """The twin's sliding window in tokens; None where none acts."""
    original_window: int | None
    """The candidate's own."""
    switch: int | None
    """Longrope: the context in tokens above which the twin's other factors hold."""
    original_switch: int | None
    """The candidate's own."""


class _Shape(NamedTuple):
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int


def shrink(config: Mapping[str, Any]) -> Miniature:
    """The miniature of a model's config.json.

    Raises ModelError where the config lacks a number that every architecture has.
    """
    twin = _without(copy.deepcopy(dict(config)))
    text = twin.get("text_config")
    nested = isinstance(text, dict)
    part: dict[str, Any] = _without(text) if isinstance(text, dict) else twin
    model_type = str(part.get("model_type", config.get("model_type", "")))
    if nested:
        model_type = str(part.setdefault("model_type", f"{model_type}_text"))
    original_window = active_window(part, model_type)
    switch = longrope_switch(part)
    kinds = _shrink_layers(part, model_type)
    _shrink_widths(part, model_type)
    _shrink_experts(part)
    shrink_lengths(part, original_window)
    _shrink_tokens(part)
    if nested:
        twin["text_config"] = part
        twin["vocab_size"] = VOCABULARY
        _shrink_tokens(twin)
    _shrink_vision(twin)
    return Miniature(
        config=twin,
        model_type=model_type,
        kinds=kinds,
        window=WINDOW if original_window else None,
        original_window=original_window,
        switch=LONGROPE_LENGTH if switch else None,
        original_switch=switch,
    )


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config that describes the language model."""
    part = config.get("text_config")
    return part if isinstance(part, dict) else config


def _without(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _DROPPED}


def _key(config: Mapping[str, Any], what: str) -> str | None:
    return next((key for key in _ALIASES[what] if key in config), None)


def _number(config: Mapping[str, Any], what: str, model_type: str) -> int | None:
    """A count from the config, or from what its class assumes."""
    for key in _ALIASES[what]:
        value = config.get(key)
        if value is None:
            value = _CLASS_DEFAULTS.get(model_type, {}).get(key)
        if value is not None:
            if type(value) is not int or value < 1:
                raise ModelError(
                    f"config.json gives {key} as {shown(str(value), 40)}; copy config.json from "
                    "the base model"
                )
            return value
    return None


def _needed(config: Mapping[str, Any], what: str, model_type: str) -> int:
    value = _number(config, what, model_type)
    if value is None:
        raise ModelError(
            f"config.json of model_type {shown(model_type)} has no {_ALIASES[what][0]}, so no "
            "miniature of it can be made; copy config.json from the base model"
        )
    return value


# -- layers -------------------------------------------------------------------------------


def _shrink_layers(config: dict[str, Any], model_type: str) -> tuple[str, ...]:
    """Keep the fewest layers with every kind among them; their kinds."""
    count = _needed(config, "layers", model_type)
    types = config.get("layer_types")
    kinds = [str(kind) for kind in types] if isinstance(types, list) else []
    if kinds and len(kinds) != count:
        raise ModelError(
            f"config.json names the kinds of {len(kinds)} layers where it has {count}; "
            "copy config.json from the base model"
        )
    kept = _kept_layers(config, model_type, min(count, MAX_LAYERS + 1), kinds)
    if len(kept) > MAX_LAYERS:
        raise ModelError(
            f"the layers of model_type {shown(model_type)} repeat after more than {MAX_LAYERS}, "
            "too many for a miniature; use the depth header or full for this candidate"
        )
    key = _key(config, "layers")
    config[key or _ALIASES["layers"][0]] = len(kept)
    for name, value in config.items():
        # Lists with an entry for each layer; a list of token ids may be as long by chance.
        if isinstance(value, list) and len(value) == count and not name.endswith(_TOKEN_KEYS):
            config[name] = [value[at] for at in kept]
    for name in ("max_window_layers", "num_hidden_layers_per_block"):
        if isinstance(config.get(name), int):
            config[name] = min(config[name], len(kept))
    if config.get("first_k_dense_replace"):
        config["first_k_dense_replace"] = 1
    if config.get("num_nextn_predict_layers"):
        config["num_nextn_predict_layers"] = 0
    if not kinds and model_type in _PERIODS:
        names = ["sliding_attention"] * (len(kept) - 1) + ["full_attention"]
        return tuple(names)
    return tuple(kinds[at] if at < len(kinds) else "decoder" for at in kept)


def _kept_layers(
    config: Mapping[str, Any], model_type: str, count: int, kinds: list[str]
) -> list[int]:
    period = config.get("sliding_window_pattern") or _PERIODS.get(model_type)
    if isinstance(period, str):  # "LLLG": three local layers, a global one
        period = len(period)
    step = config.get("decoder_sparse_step")
    if isinstance(period, int) and period > 1:
        return list(range(min(count, period)))
    if isinstance(step, int) and step > 1:
        return list(range(min(count, step)))
    if len(set(kinds)) > 1:
        return sorted(kinds.index(kind) for kind in set(kinds))
    return list(range(min(count, 2)))


# -- widths -------------------------------------------------------------------------------


def _shrink_widths(config: dict[str, Any], model_type: str) -> None:
    shape = _shape(config, model_type)
    kinds = config.get("layer_types")
    if "mamba_n_heads" in config and isinstance(kinds, list) and "mamba" not in kinds:
        # Numbers of layers that the model has none of, but its class checks them.
        config["mamba_d_head"] = GROUP // 2
    small = _small_shape(shape, config)
    config[_key(config, "hidden") or "hidden_size"] = small.hidden
    config[_key(config, "heads") or "num_attention_heads"] = small.heads
    if config.get("num_key_value_heads") is not None or small.kv_heads != small.heads:
        config["num_key_value_heads"] = small.kv_heads
    inner = _key(config, "inner")
    if inner is not None and config[inner] is not None:
        original, narrow = config[inner], 2 * GROUP
        has_experts = any(config.get(key) for key in _EXPERT_COUNTS)
        config[inner] = narrow if has_experts else small.hidden * 3 // 2 // GROUP * GROUP
        for name in _EXPERT_WIDTHS:
            # Some classes take the one for the other, so equal ones stay equal.
            if isinstance(config.get(name), int) and config[name] > 0:
                config[name] = config[inner] if config[name] == original else narrow
    if "mamba_n_heads" in config:
        expand = _mamba(config, "mamba_expand", 2)
        config["mamba_n_heads"] = expand * small.hidden // _mamba(config, "mamba_d_head")


def _shape(config: Mapping[str, Any], model_type: str) -> _Shape:
    hidden = _needed(config, "hidden", model_type)
    heads = _needed(config, "heads", model_type)
    kv_heads = _number(config, "kv_heads", model_type) or heads
    head_dim = config.get("head_dim") or _CLASS_DEFAULTS.get(model_type, {}).get("head_dim")
    if head_dim is None:
        if hidden % heads:
            raise ModelError(
                f"config.json divides hidden_size {hidden} among {heads} attention heads, which "
                "leaves a remainder; copy config.json from the base model"
            )
        head_dim = hidden // heads
    if type(head_dim) is not int or not 1 <= head_dim <= 1024 or heads % kv_heads:
        raise ModelError(
            f"config.json has {heads} attention heads of size {shown(str(head_dim), 40)} for "
            f"{kv_heads} key-value heads, which cannot be; copy config.json from the base model"
        )
    return _Shape(hidden, heads, kv_heads, head_dim)


def _small_shape(shape: _Shape, config: Mapping[str, Any]) -> _Shape:
    """The fewest heads for which every divisibility rule of the original holds."""
    ratio = min(shape.heads // shape.kv_heads, 2)
    coupled = shape.hidden == shape.heads * shape.head_dim
    for groups in range(1, 257):
        if shape.kv_heads == 1:
            kv_heads, heads = 1, max(ratio * groups, ratio)
        else:
            kv_heads = groups + 1
            heads = kv_heads * ratio
        width = heads * shape.head_dim
        if width > MAX_WIDTH:
            break
        if width % GROUP:
            continue
        if not coupled:
            return _Shape(_free_width(width, config), heads, kv_heads, shape.head_dim)
        if width >= MIN_WIDTH // 2 and _mamba_fits(width, config):
            return _Shape(width, heads, kv_heads, shape.head_dim)
    raise ModelError(
        f"no miniature keeps all divisibility rules of hidden_size {shape.hidden} with heads of "
        f"{shape.head_dim}; use the depth header or full for this candidate"
    )


def _free_width(taken: int, config: Mapping[str, Any]) -> int:
    """A hidden size that is not the heads' total, as in the original."""
    width = MIN_WIDTH
    while width == taken or not _mamba_fits(width, config):
        width += GROUP
        if width > MAX_WIDTH:
            raise ModelError("no miniature of its mamba layers keeps their divisibility rules")
    return width


def _mamba_fits(hidden: int, config: Mapping[str, Any]) -> bool:
    """Whether mamba heads of their own size fill expand · hidden, in whole groups."""
    if "mamba_n_heads" not in config:
        return True
    inner = _mamba(config, "mamba_expand", 2) * hidden
    size, groups = _mamba(config, "mamba_d_head"), _mamba(config, "mamba_n_groups", 1)
    _mamba(config, "mamba_d_state", GROUP)
    return bool(inner % size == 0 and inner // size % groups == 0 and inner % GROUP == 0)


def _mamba(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if type(value) is not int or not 0 < value <= MAX_WIDTH:
        raise ModelError(
            f"config.json gives {key} as {shown(str(value), 40)}; copy config.json from the base "
            "model"
        )
    return value


def _shrink_experts(config: dict[str, Any]) -> None:
    for key in _EXPERT_COUNTS:
        if isinstance(config.get(key), int):
            config[key] = min(config[key], EXPERTS)
    for key in _EXPERTS_USED:
        if isinstance(config.get(key), int):
            config[key] = min(config[key], EXPERTS // 2)
    if config.get("mlp_only_layers"):
        config["mlp_only_layers"] = [0]


# -- tokens and towers --------------------------------------------------------------------


def _shrink_tokens(config: dict[str, Any]) -> None:
    config["vocab_size"] = VOCABULARY
    spare = 1
    for name, value in config.items():
        if not name.endswith(_TOKEN_KEYS) or value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        if all(type(token) is int and 0 <= token < RESERVED for token in ids):
            continue
        config[name] = [spare] * len(ids) if isinstance(value, list) else spare
        spare = min(spare + 1, RESERVED - 1)


def _shrink_vision(config: dict[str, Any]) -> None:
    """A vision tower of one small layer: only the language model goes through the pipeline."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        return
    vision = _without(vision)
    patch = vision.get("patch_size")
    patch = patch if isinstance(patch, int) and 0 < patch <= 64 else 14
    small = {
        "hidden_size": GROUP, "intermediate_size": 2 * GROUP, "num_hidden_layers": 1,
        "num_attention_heads": 2, "patch_size": patch, "image_size": 2 * patch,
    }  # fmt: skip
    config["vision_config"] = {**vision, **small}
    if "mm_tokens_per_image" in config:
        config["mm_tokens_per_image"] = 1
