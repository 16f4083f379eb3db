"""Bytes of the weights and of a LoRA adapter."""

from __future__ import annotations

from collections.abc import Iterator

from harness.memory_model.settings import Settings
from harness.memory_model.shapes import Architecture, Layer, Linear, Quantisation

GB = 1e9
"""Bytes in a GB, as in `mx.get_peak_memory() / 1e9`."""
SCALE_AND_BIAS = 2
"""Numbers that MLX's affine quantisation keeps for each group of weights."""
ROUTER_GROUP = 64


def packing(architecture: Architecture, settings: Settings) -> Quantisation | None:
    """How the weights are packed under these settings; None for plain numbers."""
    if settings.bits is None:
        return architecture.quantisation
    if settings.bits >= 16:
        return None
    return Quantisation(bits=settings.bits, group_size=settings.group_size)


def element_bytes(architecture: Architecture, settings: Settings) -> int:
    """Bytes of an activation: it has the number type of the unquantised weights."""
    if settings.bits in (16, 32):
        return int(settings.bits) // 8
    return architecture.stored_bits // 8


def weight_bytes(architecture: Architecture, settings: Settings) -> float:
    """Bytes of all weights; scales and biases of quantised groups included."""
    packed, element = packing(architecture, settings), element_bytes(architecture, settings)
    total = float(architecture.other_parameters * element)
    for path, rows in architecture.embeddings:
        total += rows * _row_bytes(path, architecture.hidden, None, packed, element)
    overridden = packed is not None and bool(packed.overrides)
    sizes: dict[int, float] = {}
    for number, layer in enumerate(architecture.layers):
        # Equal layers are one object, so a deep model is counted once unless paths matter.
        key = number if overridden else id(layer)
        if key not in sizes:
            path = f"{architecture.layer_prefix}.{number}"
            sizes[key] = _layer_bytes(layer, path, packed, element)
        total += sizes[key]
    return total


def _layer_bytes(layer: Layer, path: str, packed: Quantisation | None, element: int) -> float:
    total = float(layer.other_parameters * element)
    for linear in layer.linears:
        name = f"{path}.{linear.name}"
        row = _row_bytes(name, linear.inputs, linear.bits, packed, element)
        total += linear.experts * linear.outputs * (row + int(linear.bias) * element)
    return total


def _row_bytes(
    path: str, inputs: int, bits: int | None, packed: Quantisation | None, element: int
) -> float:
    """Bytes of one row of a matrix. Rows that no group divides stay as they are."""
    if packed is None:
        return inputs * element
    own = packed.overrides.get(path, (packed.bits, packed.group_size))
    if bits is not None and path not in packed.overrides:
        own = (bits, ROUTER_GROUP)
    if own is None or inputs % own[1]:
        return inputs * element
    return inputs * own[0] / 8 + SCALE_AND_BIAS * element * inputs / own[1]


def trained_layers(architecture: Architecture, settings: Settings) -> tuple[Layer, ...]:
    """The layers with an adapter: the last ones. mlx-lm takes 0 for all, as it does -1."""
    count = settings.lora_layers
    return architecture.layers[-count:] if count > 0 else architecture.layers


def adapted(layer: Layer, settings: Settings) -> Iterator[Linear]:
    """The matrices of a trained layer that get an adapter."""
    for linear in layer.linears:
        if settings.lora_keys is None or linear.name in settings.lora_keys:
            yield linear


def trainable_parameters(architecture: Architecture, settings: Settings) -> int:
    """Elements of all adapters."""
    return sum(
        linear.adapter(settings.rank)
        for layer in trained_layers(architecture, settings)
        for linear in adapted(layer, settings)
    )
