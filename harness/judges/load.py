"""The load gate at depth full."""

from __future__ import annotations

from harness.judges.common import Amount, Count, Judged, Numbers, Problem, millions
from harness.policy import GatePolicy
from harness.records import Scalar, Status


class LoadNumbers(Numbers):
    """Numbers of the load gate."""

    parameters: Count
    weights_gb: Amount
    dtype: str
    forward_ok: bool
    token_ok: bool
    first_token: str


def judge(numbers: dict[str, Scalar], _: GatePolicy) -> Judged:
    load = LoadNumbers.model_validate(numbers)
    problems = []
    if not load.forward_ok:
        problems.append(
            Problem(
                Status.FAIL,
                "the forward pass gives numbers that are not finite",
                "load it in float32 or bfloat16, or choose another checkpoint",
            )
        )
    if not load.token_ok:
        problems.append(
            Problem(Status.FAIL, "it ends its answer before the first token", "choose another base")
        )
    return Judged(
        f"{millions(load.parameters)} parameters ({load.weights_gb:.2f} GB, {load.dtype}), first "
        f"token {load.first_token!r}",
        problems,
    )
