"""Does a real training step fit, and inference at the stated context?"""

from __future__ import annotations

from typing import Any

from harness.gates.context import Gate, GateContext, Tools
from harness.policy import Policy
from harness.records import Observation, Scalar, Status
from harness.verdict import Judged, number


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


def judge(numbers: dict[str, Scalar], policy: Policy) -> Judged:
    """The highest peak against the budget."""
    limits, budget = policy.gates.memory, number(numbers, "budget_gb")
    peaks = {what: number(numbers, f"{what}_peak_gb") for what in ("load", "inference", "train")}
    share = max(peaks.values()) / budget
    told = (
        f"training peaks at {peaks['train']:.2f} GB ({numbers['train_tokens']} tokens a batch, "
        f"{numbers['lora_layers']} layers, rank {numbers['rank']}), inference at "
        f"{peaks['inference']:.2f} GB ({numbers['context_tokens']} tokens), in "
        f"{numbers['dtype']}: {share:.0%} of {budget:.1f} GB"
    )
    if share > limits.fail_share:
        return Status.FAIL, f"{told}; it does not fit"
    return (Status.WARN if share > limits.warn_share else Status.PASS), told


GATE = Gate("memory", observe, judge, asked, own_process=True)
