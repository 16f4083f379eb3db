"""Can it say hello?"""

from __future__ import annotations

from collections import Counter
from typing import Any

from harness.gates.context import Gate, GateContext, Tools
from harness.policy import Policy
from harness.records import Observation, Outcome, Scalar, Status
from harness.verdict import Judged, number

SUITE = "greetings"


def observe(context: GateContext, tools: Tools) -> Observation:
    """Grades of the greetings suite, counted."""
    if not any(s.name == SUITE for s in context.suites):
        return Observation(gate="greetings", not_run=f"the probes hold no '{SUITE}' suite")
    answers = tools.transcript(context.subject, SUITE)
    counts = Counter(a.grade.outcome for a in answers)
    return Observation(
        gate="greetings",
        numbers={
            "n": len(answers),
            "right": counts[Outcome.RIGHT],
            "wrong": counts[Outcome.WRONG],
            "no_answer": counts[Outcome.NO_ANSWER],
            "share_right": round(counts[Outcome.RIGHT] / len(answers), 4),
        },
    )


def asked(context: GateContext) -> dict[str, Any]:
    """Which probes."""
    return {"suite": {s.name: s.sha256 for s in context.suites if s.name == SUITE}}


def judge(numbers: dict[str, Scalar], policy: Policy) -> Judged:
    """Share of greetings answered."""
    limits = policy.gates.greetings
    n, share = number(numbers, "n"), number(numbers, "share_right")
    told = f"{numbers['right']} of {numbers['n']} greetings answered ({share:.0%})"
    if n < limits.min_n:
        return Status.INCONCLUSIVE, f"{told}; too few to tell (at least {limits.min_n})"
    if share < limits.fail_share:
        return Status.FAIL, f"{told}; at least {limits.fail_share:.0%} are needed"
    return (Status.WARN if share < limits.warn_share else Status.PASS), told


GATE = Gate("greetings", observe, judge, asked)
