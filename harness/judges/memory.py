"""The memory gate at depth full: measured peaks against the budget."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.judges.common import Amount, Count, Judged, Numbers, Problem, percent
from harness.policy import GatePolicy
from harness.records import Scalar, Status


class MemoryNumbers(Numbers):
    """Numbers of the memory gate."""

    budget_gb: Annotated[float, Field(gt=0)]
    load_peak_gb: Amount
    inference_peak_gb: Amount
    train_peak_gb: Amount
    context_tokens: Count
    train_tokens: Count
    train_batch: Count
    lora_layers: int
    """-1 is MLX's way of saying all layers."""
    rank: Count
    trainable_parameters: Count
    dtype: str
    fit_command: str | None = None
    """Trains with the largest setting that is predicted to fit."""


def judge(numbers: dict[str, Scalar], policy: GatePolicy) -> Judged:
    seen, limits = MemoryNumbers.model_validate(numbers), policy.memory
    peaks = {
        "training": seen.train_peak_gb,
        "inference": seen.inference_peak_gb,
        "loading": seen.load_peak_gb,
    }
    worst = max(peaks, key=lambda stage: peaks[stage])
    share = peaks[worst] / seen.budget_gb
    problems = []
    if share > limits.warn_share:
        fails = share > limits.fail_share
        limit = limits.fail_share if fails else limits.warn_share
        problems.append(
            Problem(
                Status.FAIL if fails else Status.WARN,
                f"{worst} needs {percent(share)} of the memory budget, limit {percent(limit)}",
                _fix(worst, seen.fit_command),
            )
        )
    layers = "all" if seen.lora_layers < 0 else str(seen.lora_layers)
    return Judged(
        f"peaks of {seen.load_peak_gb:.2f} GB loading, {seen.inference_peak_gb:.2f} GB answering "
        f"at {seen.context_tokens} tokens and {seen.train_peak_gb:.2f} GB training (batch of "
        f"{seen.train_batch}, {seen.train_tokens} tokens, {layers} layers, rank {seen.rank}, "
        f"{seen.dtype}) within {seen.budget_gb:.2f} GB",
        problems,
    )


def _fix(worst: str, command: str | None) -> str:
    if command is not None:
        return f"`{command}`"
    if worst == "training":
        return (
            "train on shorter examples, with a smaller batch, on fewer layers or with gradient "
            "checkpointing"
        )
    return "choose a smaller base or a quantised one"
