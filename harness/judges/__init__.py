"""What a gate observed → its status, with one sentence of numbers. Pure.

A judge reads the numbers of its gate through a typed record: a number that is missing, of another
type or not finite makes the gate ERROR, never a pass. Thresholds are in `policy.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pydantic import ValidationError

from harness.judges import (
    answers,
    gguf,
    header_gguf,
    header_load,
    header_memory,
    load,
    memory,
    pipeline,
    tokenizer,
)
from harness.judges.common import Judged, Problem
from harness.policy import GatePolicy, Policy
from harness.records import Depth, GateResult, Observation, Scalar, Status

Judge: TypeAlias = Callable[[dict[str, Scalar], GatePolicy], Judged]

JUDGES: dict[tuple[Depth, str], Judge] = {
    ("header", "load"): header_load.judge,
    ("header", "memory"): header_memory.judge,
    ("header", "gguf"): header_gguf.judge,
    ("header", "tokenizer"): tokenizer.judge,
    ("twin", "pipeline"): pipeline.judge,
    ("full", "load"): load.judge,
    ("full", "memory"): memory.judge,
    ("full", "gguf"): gguf.judge,
    ("full", "greetings"): answers.judge_greetings,
    ("full", "facts"): answers.judge_facts,
}
"""(depth, gate) → its judge. The same gate sees other numbers without weights."""

_WORST_FIRST = (Status.FAIL, Status.INCONCLUSIVE, Status.WARN)


def judge_gate(observation: Observation, policy: Policy) -> GateResult:
    """Status, reason and fix of one gate, with all that it noticed; see `_judged`."""
    result = _judged(observation, policy)
    return result.model_copy(update={"findings": observation.findings})


def _judged(observation: Observation, policy: Policy) -> GateResult:
    """Status, reason and fix of one gate.

    A crash is ERROR (the traceback's last line is the reason), a gate that could not run is
    NOT_RUN, a finding of severity "fail" is FAIL and one of "warn" at least WARN; notes change
    nothing. Numbers that are missing or unusable, and a gate without a judge, are ERROR.
    """
    gate, numbers = observation.gate, observation.numbers
    if observation.error is not None:
        lines = [line.strip() for line in observation.error.splitlines() if line.strip()]
        reason = lines[-1] if lines else "it broke without a message"
        return GateResult(gate=gate, status=Status.ERROR, reason=reason, numbers=numbers)
    if observation.not_run is not None:
        return GateResult(gate=gate, status=Status.NOT_RUN, reason=observation.not_run)
    fails = [finding for finding in observation.findings if finding.severity == "fail"]
    if fails:
        # A gate that failed early has no numbers; those it has are shown, not judged.
        more = f" (and {len(fails) - 1} more)" if len(fails) > 1 else ""
        return GateResult(
            gate=gate,
            status=Status.FAIL,
            reason=fails[0].message + more,
            fix=fails[0].fix,
            numbers=numbers,
        )
    try:
        judge = JUDGES.get((observation.depth, gate))
        judged = None if judge is None else judge(numbers, policy.gates)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        reason = f"the evidence cannot be judged: {f'{key}: ' if key else ''}{first['msg'].lower()}"
        return GateResult(gate=gate, status=Status.ERROR, reason=reason, numbers=numbers)
    if judged is None:
        reason = f"nothing judges a gate named '{gate}'; add it to harness/judges/__init__.py"
        return GateResult(gate=gate, status=Status.ERROR, reason=reason, numbers=numbers)
    warnings = [
        Problem(Status.WARN, finding.message, finding.fix)
        for finding in observation.findings
        if finding.severity == "warn"
    ]
    return _result(gate, numbers, judged.summary, [*judged.problems, *warnings])


def _result(
    gate: str, numbers: dict[str, Scalar], summary: str, problems: list[Problem]
) -> GateResult:
    problems = sorted(problems, key=lambda problem: _WORST_FIRST.index(problem.status))
    return GateResult(
        gate=gate,
        status=problems[0].status if problems else Status.PASS,
        reason="; ".join([*(problem.text for problem in problems), summary]),
        fix=next((problem.fix for problem in problems if problem.fix is not None), None),
        numbers=numbers,
    )
