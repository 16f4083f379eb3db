"""A candidate's training settings in the memory model's words, and back into numbers."""

from __future__ import annotations

from harness.memory_model.advice import Fit, lora_command
from harness.memory_model.settings import Settings
from harness.memory_model.shapes import Architecture
from harness.records import Scalar
from harness.registry import TrainingSettings

ADAPTERS = "adapters"
"""Where the printed command writes the adapter."""


def settings_for(
    training: TrainingSettings, context_tokens: int, architecture: Architecture
) -> Settings:
    """The settings that a candidate of the registry is judged by, on Metal."""
    layers = training.lora_layers
    return Settings(
        context=context_tokens,
        lora_layers=layers if layers < 0 else min(layers, len(architecture.layers)),
        rank=training.rank,
        dropout=training.dropout,
        batch=training.batch_size,
        tokens_per_batch=training.tokens_per_batch,
        grad_checkpoint=training.grad_checkpoint,
        device="metal",
    )


def fit_numbers(
    fit: Fit, wanted: Settings, training: TrainingSettings, model: str
) -> dict[str, Scalar]:
    """What a gate records of the largest setting that fits; `model` as mlx-lm calls it."""
    return {
        "fit_bits": fit.prediction.bits,
        "fit_batch": fit.settings.batch,
        "fit_tokens": fit.settings.padded_tokens,
        "fit_lora_layers": fit.prediction.lora_layers,
        "fit_grad_checkpoint": fit.settings.grad_checkpoint,
        "fit_peak_gb": round(fit.prediction.train_peak_gb, 2),
        "fit_high_gb": round(fit.prediction.train_high_gb, 2),
        "fit_gives_up": ", ".join(fit.given_up),
        "fit_command": lora_command(
            model,
            fit.settings,
            ADAPTERS,
            wanted=wanted,
            scale=training.scale,
            learning_rate=training.learning_rate,
        ),
    }
