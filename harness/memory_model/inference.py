"""Peak memory of generation: the cache, and the temporaries of one prefill step."""

from __future__ import annotations

from harness.memory_model.coefficients import Coefficients
from harness.memory_model.settings import Settings
from harness.memory_model.shapes import Architecture, Attention, Layer, StateSpace
from harness.memory_model.training import WIDE, Batch, scan_moment
from harness.memory_model.weights import GB, element_bytes

PREFILL_STEP = 2048
"""Tokens that mlx_lm.generate reads at once."""
CACHE_STEP = 256
"""mlx-lm's KVCache grows in steps of this many tokens."""
OUTLIVING = 0.6
"""Share of a short prompt's temporaries, in all layers, that Metal holds together."""
FUSED_HEAD_DIMS = (64, 80, 128)
"""Head widths for which Metal has a fused prefill kernel (mlx scaled_dot_product_attention.cpp)."""


def inference_parts(
    architecture: Architecture, settings: Settings, copies: Coefficients
) -> dict[str, float]:
    """The parts of the peak in bytes, without the weights; they add up."""
    element, rows = element_bytes(architecture, settings), settings.inference_batch
    # The prompt's last token is read apart, so the prefill never makes logits.
    step = max(1, min(settings.context - 1, PREFILL_STEP))
    batch = Batch(rows, step, element)
    cache = sum(cache_bytes(layer, settings.context, batch) for layer in architecture.layers)
    kinds = {id(layer): layer for layer in architecture.layers}.values()
    pairs = [_forward(layer, architecture, settings, batch, copies) for layer in kinds]
    moment = max((sum(pair) for pair in pairs), default=0.0)
    squares = max((pair[1] for pair in pairs if sum(pair) == moment), default=0.0)
    logits = float(rows * architecture.vocab * (2 * element + WIDE))
    by_kind = {id(layer): sum(pair) for layer, pair in zip(kinds, pairs, strict=True)}
    whole = sum(by_kind[id(layer)] for layer in architecture.layers)
    return {
        "cache": cache,
        "temporaries": moment - squares,
        "attention scores": squares,
        "logits": logits,
        "not yet freed": min(copies.in_flight_gb * GB, OUTLIVING * whole),
    }


def cache_bytes(layer: Layer, context: int, batch: Batch) -> float:
    """Bytes that a layer's cache holds at the end of `context` tokens."""
    mixer = layer.mixer
    if not isinstance(mixer, Attention):
        state = WIDE * mixer.inner * mixer.state
        return float(batch.rows * (state + batch.element * (mixer.kernel - 1) * mixer.conv_width))
    held = -(-context // CACHE_STEP) * CACHE_STEP
    if mixer.window is not None:
        # While a prefill step is read, the window before it is still there.
        held = min(held, mixer.window + batch.length)
    return float(2 * batch.element * batch.rows * mixer.key_width * held)


def _forward(
    layer: Layer,
    architecture: Architecture,
    settings: Settings,
    batch: Batch,
    copies: Coefficients,
) -> tuple[float, float]:
    """Temporaries of one layer in a prefill step, in bytes: linear and quadratic in its length."""
    mixer = layer.mixer
    around = copies.forward_block * sum(block.width * block.copies for block in layer.blocks)
    around += copies.forward_hidden * architecture.hidden
    if isinstance(mixer, StateSpace):
        linear = batch.element * batch.tokens * around
        return linear + scan_moment(mixer, copies.forward_scan, batch), 0.0
    around += copies.forward_mixer * (mixer.query_width + 2 * mixer.key_width)
    linear = batch.element * batch.tokens * around
    fused = settings.device != "cpu" and mixer.head_dim in FUSED_HEAD_DIMS and not mixer.composed
    if fused:
        return linear, 0.0
    squares = batch.rows * mixer.heads * _longest_step(settings.context, mixer.window)
    return linear, squares * batch.element * copies.forward_scores


def _longest_step(context: int, window: int | None) -> int:
    """Tokens read × tokens seen, in the prefill step where that is most."""
    prompt = max(1, context - 1)
    whole = prompt // PREFILL_STEP * PREFILL_STEP
    steps = ((min(prompt, PREFILL_STEP), whole), (prompt - whole, prompt))
    return max(read * min(seen, seen if window is None else window + read) for read, seen in steps)
