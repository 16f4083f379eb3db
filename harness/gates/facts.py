"""Does it know medical facts?"""

from __future__ import annotations

from collections import Counter
from typing import Any

from harness.forgetting import score
from harness.gates.context import Gate, GateContext, Tools
from harness.policy import Policy
from harness.records import Observation, Outcome, Scalar, Status
from harness.verdict import Judged, number

SUITE = "medical_facts"


def observe(context: GateContext, tools: Tools) -> Observation:
    """Grades of the facts suite, and how often the right option is the likeliest."""
    if not any(s.name == SUITE for s in context.suites):
        return Observation(gate="facts", not_run=f"the probes hold no '{SUITE}' suite")
    answers = tools.transcript(context.subject, SUITE)
    counts = Counter(a.grade.outcome for a in answers)
    scored = [(a, s) for a in answers if (s := score(a.response)) is not None]
    chosen = sum(s.right for _, s in scored)
    chance = [1 / len(a.response.option_logprobs) for a, _ in scored]
    return Observation(
        gate="facts",
        numbers={
            "n": len(answers),
            "right": counts[Outcome.RIGHT],
            "wrong": counts[Outcome.WRONG],
            "no_answer": counts[Outcome.NO_ANSWER],
            "share_right": round(counts[Outcome.RIGHT] / len(answers), 4),
            "n_scored": len(scored),
            "choice_right": chosen,
            "choice_share": round(chosen / len(scored), 4) if scored else None,
            "chance_share": round(sum(chance) / len(chance), 4) if chance else None,
        },
    )


def asked(context: GateContext) -> dict[str, Any]:
    """Which probes."""
    return {"suite": {s.name: s.sha256 for s in context.suites if s.name == SUITE}}


def judge(numbers: dict[str, Scalar], policy: Policy) -> Judged:
    """Share of facts answered, and of right options preferred above guessing."""
    limits = policy.gates.facts
    n, share = number(numbers, "n"), number(numbers, "share_right")
    told = f"{numbers['right']} of {numbers['n']} facts answered ({share:.0%})"
    above = None
    if numbers["choice_share"] is not None:
        choice, chance = number(numbers, "choice_share"), number(numbers, "chance_share")
        above = choice - chance
        told += f", right option preferred on {choice:.0%} (guessing {chance:.0%})"
    if n < limits.min_n:
        return Status.INCONCLUSIVE, f"{told}; too few to tell (at least {limits.min_n})"
    if share < limits.fail_share or (above is not None and above < limits.choice_fail):
        return Status.FAIL, f"{told}; at least {limits.fail_share:.0%} are needed"
    if share < limits.warn_share or (above is not None and above < limits.choice_warn):
        return Status.WARN, f"{told}; {limits.warn_share:.0%} would be comfortable"
    return Status.PASS, told


GATE = Gate("facts", observe, judge, asked)
