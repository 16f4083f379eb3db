"""The lengths of a miniature: what acts on long texts only is made to act on short ones. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WINDOW = 32
"""Sliding window in tokens: shorter than most texts."""
ROPE_LENGTH = 64
"""Length that rope scaling starts from: the longest rope wavelengths lie well above it."""
LONGROPE_LENGTH = 256
"""The same for longrope, which changes factors there: llama.cpp rounds its contexts to this."""
CHUNK = 32
"""Mamba chunk: several in a text."""

_POSITIONS = ("max_position_embeddings", "n_positions")


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rope scaling section, empty where there is none."""
    for key in ("rope_scaling", "rope_parameters"):
        if isinstance(config.get(key), dict):
            section: dict[str, Any] = config[key]
            return section
    return {}


def _rope_type(config: Mapping[str, Any]) -> str:
    rope = _rope(config)
    return str(rope.get("rope_type") or rope.get("type") or "default")


def longrope_switch(config: Mapping[str, Any]) -> int | None:
    if _rope_type(config) not in ("longrope", "su"):
        return None
    length = config.get("original_max_position_embeddings") or _rope(config).get(
        "original_max_position_embeddings"
    )
    return length if isinstance(length, int) else None


def active_window(config: Mapping[str, Any], model_type: str) -> int | None:
    """The sliding window, where there is one that acts within the model's context."""
    window = config.get("sliding_window")
    if not isinstance(window, int) or window < 1:
        return None
    if not config.get("use_sliding_window", not model_type.startswith("qwen")):
        return None
    positions = config.get("max_position_embeddings")
    return window if not isinstance(positions, int) or window < positions else None


def shrink_lengths(config: dict[str, Any], window: int | None) -> None:
    if window is not None:
        config["sliding_window"] = WINDOW
    if isinstance(config.get("mamba_chunk_size"), int):
        config["mamba_chunk_size"] = CHUNK
    positions = next((name for name in _POSITIONS if name in config), None)
    key = "original_max_position_embeddings"
    holder = config if key in config else _rope(config)
    kind = _rope_type(config)
    length = LONGROPE_LENGTH if kind in ("longrope", "su") else ROPE_LENGTH
    if isinstance(holder.get(key), int) and holder[key] > 0:
        if positions and isinstance(config[positions], int):
            config[positions] = max(1, config[positions] * length // holder[key])
        holder[key] = length
        if key in config and key in _rope(config):
            _rope(config)[key] = length
    elif kind in ("dynamic", "yarn") and positions:
        config[positions] = ROPE_LENGTH
    for name in ("n_positions", "n_ctx"):  # learned positions: a table with a row for each
        if isinstance(config.get(name), int):
            config[name] = min(config[name], LONGROPE_LENGTH)
