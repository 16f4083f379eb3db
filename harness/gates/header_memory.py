"""Will training fit, and inference? Predicted from config.json alone."""

from __future__ import annotations

from typing import Any

from harness.checkpoints.folder import read_config
from harness.checkpoints.stored_dtype import with_stored_dtype
from harness.errors import ModelError
from harness.gates.context import Gate, GateContext, Tools
from harness.memory_model import (
    Fit,
    Prediction,
    Settings,
    is_modelled,
    largest_that_fits,
    lora_command,
    predict,
    read_architecture,
)
from harness.records import Finding, Observation, Scalar

ADAPTERS = "adapters"


def observe(context: GateContext, tools: Tools) -> Observation:  # noqa: ARG001
    """Predicted peaks on Metal, and, where they do not fit for sure, the largest that do."""
    try:
        folder = context.subject.model
        config = with_stored_dtype(read_config(folder), folder)
        if not is_modelled(config):
            kind = config["model_type"]
            return _seen(not_run=f"the memory of a {kind!r:.60} model is not modelled")
        architecture = read_architecture(config)
    except ModelError as error:
        finding = Finding(severity="fail", message=str(error), fix="choose another base model")
        return _seen(findings=(finding,))
    wanted = settings_of(context, len(architecture.layers))
    prediction = predict(architecture, wanted)
    numbers = _numbers(context, wanted, prediction)
    fit = largest_that_fits(architecture, wanted, context.budget_low_gb)
    if fit is not None and fit.settings != wanted:
        numbers |= _fit_numbers(context, wanted, fit)
    notes: tuple[Finding, ...] = ()
    if architecture.dropped:
        note = f"mlx-lm leaves out {architecture.dropped}, and so does the prediction"
        notes = (Finding(severity="note", message=note),)
    return _seen(numbers={**numbers, "fits_somehow": fit is not None}, findings=notes)


def settings_of(context: GateContext, layers: int) -> Settings:
    """The candidate's training settings in the memory model's words."""
    training = context.training
    return Settings(
        context=context.context_tokens,
        lora_layers=training.lora_layers
        if training.lora_layers < 0
        else (min(training.lora_layers, layers)),
        rank=training.rank,
        dropout=training.dropout,
        batch=training.batch_size,
        tokens_per_batch=training.tokens_per_batch,
        grad_checkpoint=training.grad_checkpoint,
        device="metal",
    )


def _numbers(context: GateContext, wanted: Settings, seen: Prediction) -> dict[str, Scalar]:
    return {
        "inference_peak_gb": round(seen.inference_peak_gb, 2),
        "train_peak_gb": round(seen.train_peak_gb, 2),
        "train_low_gb": round(seen.train_low_gb, 2),
        "train_high_gb": round(seen.train_high_gb, 2),
        "weights_gb": round(seen.weights_gb, 3),
        "parameters": seen.parameters,
        "trainable_parameters": seen.trainable_parameters,
        "bits": seen.bits,
        "train_tokens": wanted.padded_tokens,
        "train_batch": wanted.batch,
        "lora_layers": seen.lora_layers,
        "rank": wanted.rank,
        "grad_checkpoint": wanted.grad_checkpoint,
        "context_tokens": wanted.context,
        "budget_low_gb": context.budget_low_gb,
        "budget_high_gb": context.budget_gb,
    }


def _fit_numbers(context: GateContext, wanted: Settings, fit: Fit) -> dict[str, Scalar]:
    training = context.training
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
            context.repo or context.subject.label,
            fit.settings,
            ADAPTERS,
            wanted=wanted,
            scale=training.scale,
            learning_rate=training.learning_rate,
        ),
    }


def _seen(**parts: Any) -> Observation:
    return Observation(gate="memory", depth="header", **parts)


def asked(context: GateContext) -> dict[str, Any]:
    """The settings the prediction is for, and the working sets it is held against."""
    return {
        "training": context.training.model_dump(mode="json"),
        "context_tokens": context.context_tokens,
        "budget_low_gb": context.budget_low_gb,
        "budget_gb": context.budget_gb,
        "repo": context.repo,
    }


GATE = Gate("memory", observe, asked, depth="header")
