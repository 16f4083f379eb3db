"""The rules of shrinking, over every family and over configs that were made up."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from twin_configs import CONFIGS

from harness.errors import ModelError
from harness.twins.lengths import LONGROPE_LENGTH, ROPE_LENGTH, WINDOW
from harness.twins.shrink import GROUP, MAX_WIDTH, RESERVED, VOCABULARY, shrink, text_part

CHANGED = {
    "hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers",
    "intermediate_size", "shared_intermediate_size", "vocab_size", "layer_types",
    "max_position_embeddings", "original_max_position_embeddings", "max_window_layers",
    "sliding_window", "mamba_n_heads", "mamba_d_head", "mamba_chunk_size", "num_local_experts",
    "num_experts_per_tok", "rope_scaling", "n_embd", "n_head", "n_layer", "n_positions", "n_ctx",
    "vision_config", "text_config", "mm_tokens_per_image", "model_type",
}  # fmt: skip
"""What a miniature may have another value of; token ids and descriptions aside."""


def shape(config: dict[str, Any]) -> tuple[int, int, int, int]:
    """(hidden, heads, key-value heads, head size), class defaults of Gemma 3 filled in."""
    part = dict(text_part(config))
    if part.get("model_type") == "gemma3_text":
        part = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, **part}
    hidden = part.get("hidden_size") or part["n_embd"]
    heads = part.get("num_attention_heads") or part["n_head"]
    kv_heads = part.get("num_key_value_heads") or heads
    return hidden, heads, kv_heads, part.get("head_dim") or hidden // heads


def assert_rules(original: dict[str, Any], twin: dict[str, Any]) -> None:
    """Every divisibility rule, and every kind of layer and attention, is the original's."""
    hidden, heads, kv_heads, head_dim = shape(twin)
    was_hidden, was_heads, was_kv, was_dim = shape(original)
    assert head_dim == was_dim
    assert hidden % GROUP == 0 and heads * head_dim % GROUP == 0
    assert heads % kv_heads == 0
    assert (heads > kv_heads) == (was_heads > was_kv)
    assert (kv_heads > 1) == (was_kv > 1)
    assert (hidden == heads * head_dim) == (was_hidden == was_heads * was_dim)
    assert hidden <= MAX_WIDTH
    part, was = text_part(twin), text_part(original)
    for key in ("intermediate_size", "shared_intermediate_size", "n_inner"):
        if was.get(key):
            assert part[key] % GROUP == 0
    if "mamba" in (part.get("layer_types") or []):
        inner = part["mamba_n_heads"] * part["mamba_d_head"]
        assert inner == part["mamba_expand"] * hidden and inner % GROUP == 0
        assert part["mamba_n_heads"] % part["mamba_n_groups"] == 0
        assert part["mamba_d_head"] == was["mamba_d_head"]
    if was.get("layer_types"):
        assert set(part["layer_types"]) == set(was["layer_types"])
        assert len(part["layer_types"]) == part["num_hidden_layers"] <= was["num_hidden_layers"]


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_keeps_its_rules(family: str) -> None:
    original = copy.deepcopy(CONFIGS[family])
    twin = shrink(original).config
    assert original == CONFIGS[family], "the original was changed"
    assert_rules(original, twin)


@pytest.mark.parametrize("family", CONFIGS)
def test_what_decides_the_computation_is_kept(family: str) -> None:
    original, twin = CONFIGS[family], shrink(CONFIGS[family]).config
    for before, after in ((original, twin), (text_part(original), text_part(twin))):
        for key, value in before.items():
            if key in CHANGED or "token" in key or key == "torch_dtype":
                continue
            assert after[key] == value, key
    assert "torch_dtype" not in twin


@pytest.mark.parametrize("family", CONFIGS)
def test_no_token_is_outside_the_vocabulary(family: str) -> None:
    twin = shrink(CONFIGS[family]).config
    for part in (twin, text_part(twin)):
        assert part.get("vocab_size", VOCABULARY) == VOCABULARY
        for key, value in part.items():
            if key.endswith(("_token_id", "_token_index")) and value is not None:
                ids = value if isinstance(value, list) else [value]
                assert all(0 <= token < RESERVED for token in ids), key


def test_rope_scaling_acts_on_short_texts() -> None:
    twin = shrink(CONFIGS["llama3-rope"]).config
    rope = twin["rope_scaling"]
    assert rope["original_max_position_embeddings"] == ROPE_LENGTH
    assert (rope["factor"], rope["rope_type"], twin["rope_theta"]) == (32.0, "llama3", 500000.0)
    assert twin["max_position_embeddings"] == 131072 * ROPE_LENGTH // 8192


def test_longrope_keeps_its_factors_and_where_they_change() -> None:
    mini = shrink(CONFIGS["phi3-longrope"])
    assert (mini.switch, mini.original_switch) == (LONGROPE_LENGTH, 4096)
    assert mini.config["rope_scaling"] == CONFIGS["phi3-longrope"]["rope_scaling"]
    assert mini.config["max_position_embeddings"] == 32 * LONGROPE_LENGTH
    assert mini.window is None, "a window longer than the context never acts"


@pytest.mark.parametrize(
    ("family", "window"),
    [("gemma3-vision", 1024), ("gemma3-text", 512), ("mistral-window", 4096), ("phi3", 2047)],
)
def test_sliding_windows_act_within_the_texts(family: str, window: int) -> None:
    mini = shrink(CONFIGS[family])
    assert (mini.window, mini.original_window) == (WINDOW, window)
    assert text_part(mini.config)["sliding_window"] == WINDOW


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "mistral", "llama"])
def test_windows_that_never_act_are_none(family: str) -> None:
    assert shrink(CONFIGS[family]).window is None


def test_layer_kinds() -> None:
    assert shrink(CONFIGS["granite4-hybrid"]).kinds == ("mamba", "attention")
    assert shrink(CONFIGS["gemma3-vision"]).kinds == (*["sliding_attention"] * 5, "full_attention")
    assert len(shrink(CONFIGS["llama"]).kinds) == 2


def test_the_vision_tower_is_small_and_the_text_part_full() -> None:
    twin = shrink(CONFIGS["gemma3-vision"]).config
    assert twin["vision_config"]["num_hidden_layers"] == 1
    assert twin["vision_config"]["model_type"] == "siglip_vision_model"
    assert twin["text_config"]["rope_scaling"] == {"factor": 8.0, "rope_type": "linear"}
    assert "head_dim" not in twin["text_config"], "what the class assumes is left to the class"


heads_of = st.tuples(
    st.sampled_from([1, 2, 3, 4, 5, 8]),  # key-value heads
    st.sampled_from([1, 2, 3, 4, 5, 7, 8]),  # heads for each
    st.sampled_from([16, 32, 40, 64, 72, 80, 96, 112, 128, 160, 192, 256]),
)


@given(heads=heads_of, layers=st.integers(1, 80), coupled=st.booleans())
def test_made_up_attention_keeps_its_rules(
    heads: tuple[int, int, int], layers: int, coupled: bool
) -> None:
    kv_heads, ratio, head_dim = heads
    assume(kv_heads * ratio > 1)
    total = kv_heads * ratio * head_dim
    original = {
        **CONFIGS["qwen3"], "num_key_value_heads": kv_heads,
        "num_attention_heads": kv_heads * ratio, "head_dim": head_dim,
        "hidden_size": total if coupled else total + 64, "num_hidden_layers": layers,
    }  # fmt: skip
    twin = shrink(original).config
    assert_rules(original, twin)
    assert twin["num_hidden_layers"] == min(layers, 2)


@given(
    kinds=st.lists(st.sampled_from(["mamba", "attention"]), min_size=1, max_size=60),
    d_head=st.sampled_from([32, 40, 64, 128]),
    heads=st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4])),
    groups=st.sampled_from([1, 2, 4]),
)
def test_made_up_hybrids_keep_their_rules(
    kinds: list[str], d_head: int, heads: tuple[int, int], groups: int
) -> None:
    assume(heads[0] * heads[1] > 1)
    total = heads[0] * heads[1] * 64
    original = {
        **CONFIGS["granite4-hybrid"], "layer_types": kinds, "num_hidden_layers": len(kinds),
        "mamba_d_head": d_head, "mamba_n_groups": groups, "num_key_value_heads": heads[0],
        "num_attention_heads": heads[0] * heads[1], "hidden_size": total,
        "mamba_n_heads": 2 * total // d_head,
    }  # fmt: skip
    twin = shrink(original).config
    assert_rules(original, twin)
    for key in ("embedding_multiplier", "residual_multiplier", "logits_scaling"):
        assert twin[key] == original[key]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(family=st.sampled_from(sorted(CONFIGS)), data=st.data())
def test_a_broken_config_is_refused_or_shrunk_but_never_crashes(
    family: str, data: st.DataObject
) -> None:
    config = copy.deepcopy(CONFIGS[family])
    part = config.get("text_config", config)
    for key in data.draw(st.lists(st.sampled_from(sorted(part)), min_size=1, max_size=3)):
        part[key] = data.draw(json_values)
    try:
        twin = shrink(config).config
    except ModelError as error:
        assert "config.json" in str(error) or "miniature" in str(error)
    else:
        assert text_part(twin)["vocab_size"] == VOCABULARY


def test_a_config_without_a_size_is_refused_by_name() -> None:
    config = {k: v for k, v in CONFIGS["llama"].items() if k != "hidden_size"}
    with pytest.raises(ModelError, match="hidden_size"):
        shrink(config)
