"""The few numbers that are measured and not derived, one set for each device.

Everything else in the model is counted: which arrays a layer keeps, and how large they are. These
say how many more arrays of each kind exist at the worst moment, which depends on the order in
which MLX evaluates and frees. `benchmarks/memory_model.py` shows how well they do.
"""

from __future__ import annotations

from typing import NamedTuple


class ScanCopies(NamedTuple):
    """Copies of the arrays of a Mamba-2 scan."""

    plain: float
    """Of its widths, in the model's number type."""
    wide: float
    outer: float
    """Of one chunk's outer products of outputs and states."""
    chunk: float
    """Of the chunk matrices, of all chunks together."""


class Coefficients(NamedTuple):
    """Copies of an array that are alive together; "wide" ones are float32 (LoRA's own type)."""

    logits: float
    """Of the logits while the loss and its gradient are computed."""
    logits_wide: float
    """Of the logits in float32 in the same moment."""
    block: float
    """Of the feed-forward width while a block's gradient is computed."""
    block_wide: float
    scores: float
    """Of the attention scores of one layer while its gradient is computed."""
    mixer: float
    """Of the query, key and value widths in that moment."""
    mixer_wide: float
    hidden: float
    """Of the model's width, in both moments."""
    hidden_wide: float
    scan: ScanCopies
    """Of a Mamba scan's arrays while its gradient is computed."""
    forward_scan: ScanCopies
    """Of a Mamba scan's arrays in inference."""
    forward_block: float
    """Of the feed-forward width in inference."""
    forward_mixer: float
    forward_scores: float
    forward_hidden: float
    in_flight_gb: float
    """Temporaries that outlive their use, at most: Metal frees them with their command buffer."""
    low: float
    """Ends of the interval, as factors on everything but the weights."""
    high: float


CPU = Coefficients(
    logits=4.0,
    logits_wide=0.0,
    block=4.0,
    block_wide=2.2,
    scores=2.3,
    mixer=1.0,
    mixer_wide=1.0,
    hidden=5.0,
    hidden_wide=3.0,
    scan=ScanCopies(plain=4.0, wide=7.0, outer=2.0, chunk=2.0),
    forward_scan=ScanCopies(plain=1.5, wide=3.5, outer=1.0, chunk=1.0),
    forward_block=3.0,
    forward_mixer=2.0,
    forward_scores=1.1,
    forward_hidden=4.0,
    in_flight_gb=0.0,
    low=0.85,
    high=1.2,
)
METAL = CPU._replace(logits=2.0, logits_wide=2.0, in_flight_gb=0.6, low=0.85, high=1.35)
"""The loss as mlx-lm computed it in all published measurements: in float32, operation by operation.
"""
METAL_LEAST = METAL._replace(logits_wide=0.0, in_flight_gb=0.0)
"""The least that Metal can do with: mlx 0.32's fused cross-entropy, which keeps the logits and
their gradient only, and every temporary freed at once."""
