"""The load gate at depth header: what mlx-lm's strict lazy load says of the headers."""

from __future__ import annotations

from typing import Literal

from harness.judges.common import Amount, Count, Judged, Numbers, Problem, millions
from harness.policy import GatePolicy
from harness.records import Scalar, Standing, Status

_LOOK_AGAIN = "vet it again where the Hugging Face Hub can be reached: then its own files are read"


class HeaderLoadNumbers(Numbers):
    """Numbers of the load gate at depth header."""

    parameters: Count
    tensors: Count
    weights_gb: Amount
    dtype: str
    model_type: str
    dropped_parameters: Count
    weight_format: Literal["safetensors", "pickle", "unknown"]
    config_standing: Standing
    tensors_standing: Standing
    weights_standing: Standing


def judge(numbers: dict[str, Scalar], _: GatePolicy) -> Judged:
    """PASS where the strict load succeeded on facts that can be relied on.

    What does not load is a finding of the gate and never comes here.
    """
    seen = HeaderLoadNumbers.model_validate(numbers)
    problems = []
    if seen.weight_format == "unknown":
        problems.append(
            Problem(
                Status.WARN,
                "whether it has safetensors, which alone are loaded, is not known",
                _LOOK_AGAIN,
            )
        )
    unverified = [
        part
        for part, standing in (
            ("config", seen.config_standing),
            ("tensors", seen.tensors_standing),
            ("weight files", seen.weights_standing),
        )
        if standing in ("unverified", "missing")
    ]
    if unverified and not problems:
        problems.append(Problem(Status.WARN, f"{_listed(unverified)} taken on trust", _LOOK_AGAIN))
    left_out = (
        f", of which mlx-lm leaves out {millions(seen.dropped_parameters)}"
        if seen.dropped_parameters
        else ""
    )
    return Judged(
        f"{seen.model_type} with {millions(seen.parameters)} parameters in {seen.tensors} tensors "
        f"({seen.weights_gb:.2f} GB, {seen.dtype}){left_out}{_standing(seen)}",
        problems,
    )


def _standing(seen: HeaderLoadNumbers) -> str:
    """How well it is known, where it was not all read or published."""
    parts = {"config": seen.config_standing, "tensors": seen.tensors_standing}
    told = [f"{k} {v}" for k, v in parts.items() if v not in ("read", "published")]
    return f"; {', '.join(told)}" if told else ""


def _listed(parts: list[str]) -> str:
    *most, last = parts
    are = "are" if most or last != "config" else "is"
    return f"{', '.join(most)} and {last} {are}" if most else f"{last} {are}"
