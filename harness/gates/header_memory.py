"""Will training fit, and inference? Predicted from config.json alone."""

from __future__ import annotations

from typing import Any

from harness.checkpoints.folder import read_config
from harness.checkpoints.stored_dtype import with_stored_dtype
from harness.errors import ModelError
from harness.gates.context import Gate, GateContext, Tools
from harness.memory_model import (
    Prediction,
    Settings,
    fit_numbers,
    is_modelled,
    largest_that_fits,
    predict,
    read_architecture,
    settings_for,
)
from harness.records import Finding, Observation, Scalar


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
    wanted = settings_for(context.training, context.context_tokens, architecture)
    prediction = predict(architecture, wanted)
    numbers = _numbers(context, wanted, prediction)
    fit = largest_that_fits(architecture, wanted, context.budget_low_gb)
    pickled = context.facts is not None and context.facts.weight_format == "pickle"
    # mlx-lm converts safetensors only: the name is that of the copy which the load gate asks for.
    name = f"{context.subject.label}-safetensors" if pickled else context.mlx_name
    if fit is not None and fit.settings != wanted:
        numbers |= fit_numbers(fit, wanted, context.training, name)
    notes: tuple[Finding, ...] = ()
    if architecture.dropped:
        note = f"mlx-lm leaves out {architecture.dropped}, and so does the prediction"
        notes = (Finding(severity="note", message=note),)
    return _seen(numbers={**numbers, "fits_somehow": fit is not None}, findings=notes)


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


def _seen(**parts: Any) -> Observation:
    return Observation(gate="memory", depth="header", **parts)


def asked(context: GateContext) -> dict[str, Any]:
    """The settings the prediction is for, and the working sets it is held against."""
    return {
        "training": context.training.model_dump(mode="json"),
        "context_tokens": context.context_tokens,
        "budget_low_gb": context.budget_low_gb,
        "budget_gb": context.budget_gb,
        "model": context.mlx_name,
        "format": None if context.facts is None else context.facts.weight_format,
    }


GATE = Gate("memory", observe, asked, depth="header")
