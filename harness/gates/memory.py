"""Does a real training step fit, and inference at the stated context?"""

from __future__ import annotations

from typing import Any

from harness.checkpoints.folder import read_config
from harness.checkpoints.stored_dtype import with_stored_dtype
from harness.gates.context import Gate, GateContext, Tools
from harness.memory_model import (
    fit_numbers,
    is_modelled,
    largest_that_fits,
    read_architecture,
    settings_for,
)
from harness.records import Observation, Scalar


def observe(context: GateContext, tools: Tools) -> Observation:  # noqa: ARG001
    """Measured peaks of MLX's allocator: load, inference, two LoRA steps on full batches."""
    from harness.engines.mlx_training import measure_peaks

    peaks = measure_peaks(
        context.subject.model, context.context_tokens, context.training, context.seed
    )
    numbers = {"budget_gb": context.budget_gb, **peaks}
    return Observation(gate="memory", numbers={**numbers, **_smaller(context)})


def _smaller(context: GateContext) -> dict[str, Scalar]:
    """The largest setting predicted to fit, where the asked one is predicted not to."""
    config = with_stored_dtype(read_config(context.subject.model), context.subject.model)
    if not is_modelled(config):
        return {}
    architecture = read_architecture(config)
    wanted = settings_for(context.training, context.context_tokens, architecture)
    fit = largest_that_fits(architecture, wanted, context.budget_low_gb)
    if fit is None or fit.settings == wanted:
        return {}
    return fit_numbers(fit, wanted, context.training, context.mlx_name)


def asked(context: GateContext) -> dict[str, Any]:
    """The settings the peaks depend on, and the budget they are judged against."""
    return {
        "training": context.training.model_dump(mode="json"),
        "context_tokens": context.context_tokens,
        "budget_gb": context.budget_gb,
        "budget_low_gb": context.budget_low_gb,
        "seed": context.seed,
    }


GATE = Gate("memory", observe, asked, own_process=True, version=2)
