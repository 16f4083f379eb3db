"""The memory gate at depth header: predicted peaks against Metal's working set."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.judges.common import Amount, Count, Judged, Numbers, Problem
from harness.policy import GatePolicy
from harness.records import Scalar, Status

NOTHING = "choose a smaller base: nothing that is worth training fits, not even on 4 bits"


class HeaderMemoryNumbers(Numbers):
    """Numbers of the memory gate at depth header; `fit_*` where the wanted settings may not fit."""

    inference_peak_gb: Amount
    train_peak_gb: Amount
    train_low_gb: Amount
    train_high_gb: Amount
    bits: Count
    train_tokens: Count
    train_batch: Count
    lora_layers: Count
    rank: Count
    context_tokens: Count
    budget_low_gb: Annotated[float, Field(gt=0)]
    budget_high_gb: Annotated[float, Field(gt=0)]
    fits_somehow: bool
    fit_bits: Count | None = None
    fit_batch: Count | None = None
    fit_tokens: Count | None = None
    fit_lora_layers: Count | None = None
    fit_peak_gb: Amount | None = None
    fit_gives_up: str | None = None
    fit_command: str | None = None


def judge(numbers: dict[str, Scalar], policy: GatePolicy) -> Judged:  # noqa: ARG001
    """FAIL above the working set of recent Macs, WARN where older ones may not have room."""
    seen = HeaderMemoryNumbers.model_validate(numbers)
    peaks = {"training": seen.train_peak_gb, "inference": seen.inference_peak_gb}
    worst = max(peaks, key=lambda stage: peaks[stage])
    fix = _fix(seen)
    problems = []
    if peaks[worst] > seen.budget_high_gb:
        text = f"{worst} needs about {peaks[worst]:.2f} GB, more than {_lent(seen, older=False)}"
        problems.append(Problem(Status.FAIL, text, fix))
    elif peaks[worst] > seen.budget_low_gb:
        text = f"{worst} needs about {peaks[worst]:.2f} GB, more than {_lent(seen, older=True)}"
        problems.append(Problem(Status.WARN, text, fix))
    elif seen.train_high_gb > seen.budget_low_gb:
        text = f"training may need {seen.train_high_gb:.2f} GB, more than {_lent(seen, older=True)}"
        problems.append(Problem(Status.WARN, text, fix))
    summary = (
        f"predicted peaks of {seen.train_peak_gb:.2f} GB training ({seen.train_low_gb:.2f} to "
        f"{seen.train_high_gb:.2f}; {seen.bits} bits, batch of {seen.train_batch}, "
        f"{seen.train_tokens} tokens, {seen.lora_layers} layers, rank {seen.rank}) and "
        f"{seen.inference_peak_gb:.2f} GB answering at {seen.context_tokens} tokens"
    )
    if problems and seen.fit_peak_gb is not None:
        summary += f"; {_fitting(seen)} takes about {seen.fit_peak_gb:.2f} GB"
    return Judged(summary, problems)


def _lent(seen: HeaderMemoryNumbers, *, older: bool) -> str:
    """Metal's working set, of older and recent Macs where no Metal was asked."""
    low, high = seen.budget_low_gb, seen.budget_high_gb
    if low == high:
        return f"the {high:.2f} GB that Metal lends"
    if older:
        return f"the {low:.2f} GB that Metal lends on older Macs ({high:.2f} on recent ones)"
    return f"the {low:.2f} to {high:.2f} GB that Metal lends"


def _fitting(seen: HeaderMemoryNumbers) -> str:
    """The setting that fits: what is given up, then all of it."""
    return (
        f"with {seen.fit_gives_up} it fits ({seen.fit_bits} bits, batch of {seen.fit_batch}, "
        f"{seen.fit_tokens} tokens, {seen.fit_lora_layers} layers) and"
    )


def _fix(seen: HeaderMemoryNumbers) -> str:
    if seen.fit_command is None:
        return NOTHING
    return f"`{seen.fit_command}`"
