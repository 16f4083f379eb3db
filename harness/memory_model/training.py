"""Peak memory of a LoRA step, moment by moment.

Reverse differentiation keeps what each operation of the trained layers needs for its gradient.
The peak is one of three moments: the loss and its gradient with respect to the logits (all kept
arrays are alive), or the gradient of the last layer's feed-forward block, or of its mixer. Nothing
is kept below the lowest adapted layer.
"""

from __future__ import annotations

from typing import NamedTuple

from harness.memory_model.coefficients import Coefficients, ScanCopies
from harness.memory_model.settings import Settings
from harness.memory_model.shapes import Architecture, Attention, FeedForward, Layer, StateSpace
from harness.memory_model.weights import (
    GB,
    adapted,
    element_bytes,
    trainable_parameters,
    trained_layers,
)

WIDE = 4
"""Bytes of float32, in which mlx-lm keeps LoRA's matrices and computes with them."""
CHUNK = 256
"""Tokens per chunk of the Mamba-2 scan (mlx_lm/models/ssm.py)."""
CHUNK_KEPT = 2
"""Kept chunk matrices of a Mamba layer: the decays, and their masked product with C and B."""
KEPT_BY = {"swiglu": 4, "gelu": 6, "gelu_approx": 7, "plain_gelu": 6}
"""Arrays of its width that a block keeps. swiglu: gate, its sigmoid, their product, and up."""
CHECKPOINT_KEPT = 2
"""Arrays of the model's width that a checkpointed layer keeps: what it reads and what it gives."""
STATES = {"adam": 2, "adamw": 2, "muon": 1, "sgd": 1, "adafactor": 1}
"""Arrays of an adapter's size that the optimizer keeps; MLX's SGD keeps one, adafactor at most."""


class Batch(NamedTuple):
    """The longest batch as the model sees it: its last token is only a target."""

    rows: int
    length: int
    element: int
    """Bytes of an activation."""

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    def scores(self, attention: Attention) -> float:
        """Bytes of one layer's attention scores; a sliding window masks them, but keeps them."""
        return float(self.element * self.rows * attention.heads * self.length**2)

    def chunks(self, mixer: StateSpace) -> float:
        """Bytes of one layer's chunk matrices, all chunks together, in float32."""
        whole, rest = divmod(self.length, CHUNK)
        squares = whole * CHUNK**2 + rest**2
        return float(WIDE * self.rows * mixer.heads * squares)


class Kept(NamedTuple):
    """Bytes that one layer keeps for its gradient."""

    block: float
    mixer: float
    scores: float

    @property
    def total(self) -> float:
        return self.block + self.mixer + self.scores


def longest_batch(architecture: Architecture, settings: Settings, tokens: int) -> Batch:
    """A batch of so many padded tokens."""
    length = max(1, tokens // settings.batch - 1)
    return Batch(settings.batch, length, element_bytes(architecture, settings))


def kept(layer: Layer, hidden: int, batch: Batch, settings: Settings) -> Kept:
    """What a trained layer keeps: counted operation by operation, in bytes."""
    tokens, element = batch.tokens, batch.element
    inputs = _adapter_inputs(layer, batch, settings)
    wide = sum((KEPT_BY[b.activation] + 2 * b.joined) * b.width * b.copies for b in layer.blocks)
    block = float(element * tokens * wide)
    # A norm keeps its input; of two norms around a block one input is the residual stream.
    block += element * tokens * hidden * layer.norms / 2
    block += sum(element * tokens * hidden * b.copies for b in layer.blocks if b.experts > 1)
    mixer = element * tokens * hidden * layer.norms / 2
    scores = 0.0
    if isinstance(layer.mixer, Attention):
        query, key = layer.mixer.query_width, layer.mixer.key_width
        mixer += element * tokens * (2 * query + 2 * key)
        if layer.mixer.normed or layer.mixer.joined:
            mixer += element * tokens * (query + key)
        scores = batch.scores(layer.mixer) * (2 if layer.mixer.composed else 1)
    else:
        # The gate, its sigmoid and product, the convolution and its sigmoid; and in float32 the
        # scan's inputs times their steps, transposed, its outputs, and what the state adds.
        mixer += element * tokens * (4 * layer.mixer.inner + 2 * layer.mixer.conv_width)
        mixer += WIDE * tokens * 5 * layer.mixer.inner
        scores = CHUNK_KEPT * batch.chunks(layer.mixer)
    outer = {"block", "inner", "routed", "expert"}
    return Kept(
        block=block + sum(size for source, size in inputs.items() if source in outer),
        mixer=mixer + sum(size for source, size in inputs.items() if source not in outer),
        scores=scores,
    )


def _adapter_inputs(layer: Layer, batch: Batch, settings: Settings) -> dict[str, float]:
    """Inputs that LoRA keeps in float32: one for each source, or, with dropout, for each matrix."""
    found: dict[str, float] = {}
    for linear in adapted(layer, settings):
        width = batch.tokens * linear.inputs * linear.per_token
        rank = WIDE * batch.tokens * settings.rank * linear.per_token
        if settings.dropout > 0:
            masked = (WIDE + batch.element) * width
            found[linear.source] = found.get(linear.source, 0.0) + masked + rank
        else:
            shared = found.get(linear.source, float(WIDE * width))
            found[linear.source] = shared + rank
    return found


def block_moment(block: FeedForward, copies: Coefficients, batch: Batch, wide: bool) -> float:
    """Extra bytes while the gradient of a feed-forward block is computed."""
    width = batch.tokens * block.width * block.copies
    return width * (copies.block * batch.element + wide * copies.block_wide * WIDE)


def mixer_moment(layer: Layer, copies: Coefficients, batch: Batch, wide: bool) -> float:
    """Extra bytes while the gradient of an attention or Mamba mixer is computed."""
    if isinstance(layer.mixer, StateSpace):
        return scan_moment(layer.mixer, copies.scan, batch)
    width = batch.tokens * (layer.mixer.query_width + 2 * layer.mixer.key_width)
    square = copies.scores * batch.scores(layer.mixer)
    return square + width * (copies.mixer * batch.element + wide * copies.mixer_wide * WIDE)


def scan_moment(mixer: StateSpace, copies: ScanCopies, batch: Batch) -> float:
    """Extra bytes of a Mamba-2 scan, in float32 whatever the model, or of its gradient.

    From the second chunk on, each token's output is multiplied with the state before the chunk,
    which makes outer products of widths and state, for one chunk at a time.
    """
    width = batch.tokens * (mixer.inner + mixer.conv_width)
    linear = width * (copies.plain * batch.element + copies.wide * WIDE)
    carries = batch.length > CHUNK
    outer = WIDE * batch.rows * CHUNK * mixer.inner * mixer.state if carries else 0
    return linear + copies.outer * outer + copies.chunk * batch.chunks(mixer)


def layer_moment(
    layer: Layer,
    hidden: int,
    own: Kept,
    copies: Coefficients,
    batch: Batch,
    settings: Settings,
) -> float:
    """Extra bytes while the gradient of the last layer is computed: its block's or its mixer's.

    With gradient checkpointing the layer is computed again first.
    """
    wide = next(adapted(layer, settings), None) is not None
    around = batch.tokens * hidden * copies.hidden * batch.element
    around += wide * batch.tokens * hidden * copies.hidden_wide * WIDE
    again = own.total if settings.grad_checkpoint else 0.0
    block = max(block_moment(b, copies, batch, wide) for b in layer.blocks)
    # The block's gradient comes first, and what the block kept is then gone.
    mixer = mixer_moment(layer, copies, batch, wide) - own.block
    return again + around + max(block, mixer)


def loss_moment(architecture: Architecture, copies: Coefficients, batch: Batch) -> float:
    """Bytes of all copies of the logits while the loss and its gradient are computed."""
    logits = float(batch.tokens * architecture.vocab)
    plain = copies.logits + architecture.logit_copies
    return logits * (plain * batch.element + copies.logits_wide * WIDE)


def training_parts(
    architecture: Architecture, settings: Settings, copies: Coefficients, tokens: int
) -> dict[str, float]:
    """The parts of a step's peak in bytes, without the weights; they add up.

    `tokens` are the padded tokens of the batch.
    """
    batch = longest_batch(architecture, settings, tokens)
    layers = trained_layers(architecture, settings)
    sizes: dict[int, Kept] = {}
    for layer in layers:
        if id(layer) not in sizes:
            sizes[id(layer)] = kept(layer, architecture.hidden, batch, settings)
    each = [sizes[id(layer)] for layer in layers]
    stream = float(batch.element * batch.tokens * architecture.hidden)
    if settings.grad_checkpoint:
        activations, scores = CHECKPOINT_KEPT * stream * len(layers), 0.0
    else:
        activations = sum(k.block + k.mixer for k in each)
        scores = sum(k.scores for k in each)
    gradients = (
        layer_moment(layer, architecture.hidden, sizes[id(layer)], copies, batch, settings)
        for layer in {id(layer): layer for layer in layers}.values()
    )
    moments = {
        "logits and loss": loss_moment(architecture, copies, batch),
        "one layer's gradient": max(gradients),
    }
    worst = max(moments, key=lambda name: moments[name])
    adapters = trainable_parameters(architecture, settings)
    parts = {
        "adapters and optimizer": float(WIDE * adapters * (2 + STATES[settings.optimizer])),
        "activations": activations,
        "attention scores": scores,
        worst: moments[worst],
    }
    parts["not yet freed"] = min(copies.in_flight_gb * GB, sum(parts.values()))
    return parts
