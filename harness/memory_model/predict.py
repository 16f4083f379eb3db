"""Architecture + settings → peak memory, with its parts and an interval. Pure."""

from __future__ import annotations

from harness.memory_model.coefficients import CPU, METAL, METAL_LEAST
from harness.memory_model.inference import inference_parts
from harness.memory_model.settings import Prediction, Settings
from harness.memory_model.shapes import Architecture
from harness.memory_model.training import training_parts
from harness.memory_model.weights import (
    GB,
    element_bytes,
    packing,
    trainable_parameters,
    trained_layers,
    weight_bytes,
)


def predict(architecture: Architecture, settings: Settings) -> Prediction:
    """Peak memory of inference and of a LoRA step, in GB of 10⁹ bytes.

    The model behind it, with its sources and its measured errors, is docs/memory.md.
    """
    copies, least = (CPU, CPU) if settings.device == "cpu" else (METAL, METAL_LEAST)
    weights = weight_bytes(architecture, settings)
    infer = inference_parts(architecture, settings, copies)
    fewest, likely, most = settings.token_range
    low = training_parts(architecture, settings, least, fewest)
    train = training_parts(architecture, settings, copies, likely)
    high = training_parts(architecture, settings, copies, most)
    packed = packing(architecture, settings)
    return Prediction(
        inference_peak_gb=(weights + sum(infer.values())) / GB,
        train_peak_gb=(weights + sum(train.values())) / GB,
        train_low_gb=(weights + copies.low * sum(low.values())) / GB,
        train_high_gb=(weights + copies.high * sum(high.values())) / GB,
        breakdown_gb=_parts(weights, train),
        inference_breakdown_gb=_parts(weights, infer),
        weights_gb=weights / GB,
        bits=packed.bits if packed else 8 * element_bytes(architecture, settings),
        parameters=architecture.parameters,
        trainable_parameters=trainable_parameters(architecture, settings),
        lora_layers=len(trained_layers(architecture, settings)),
    )


def _parts(weights: float, parts: dict[str, float]) -> dict[str, float]:
    return {"weights": weights / GB, **{n: size / GB for n, size in parts.items() if size}}
