"""Does a real training step fit, and inference at the stated context?"""

from __future__ import annotations

from typing import Any

from harness.gates.context import Gate, GateContext, Tools
from harness.records import Observation


def observe(context: GateContext, tools: Tools) -> Observation:  # noqa: ARG001
    """Measured peaks of MLX's allocator: load, inference, two LoRA steps on full batches."""
    from harness.engines.mlx_training import measure_peaks

    peaks = measure_peaks(
        context.subject.model, context.context_tokens, context.training, context.seed
    )
    return Observation(gate="memory", numbers={"budget_gb": context.budget_gb, **peaks})


def asked(context: GateContext) -> dict[str, Any]:
    """The settings the peaks depend on, and the budget they are judged against."""
    return {
        "training": context.training.model_dump(mode="json"),
        "context_tokens": context.context_tokens,
        "budget_gb": context.budget_gb,
        "seed": context.seed,
    }


GATE = Gate("memory", observe, asked, own_process=True)
