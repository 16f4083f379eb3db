"""Does it know medical facts?"""

from __future__ import annotations

from typing import Any

from harness.forgetting import score
from harness.gates.context import Gate, GateContext, Tools, counted
from harness.grading import GRADER_VERSION
from harness.records import Observation
from harness.transcripts import ASKED

SUITE = "medical_facts"


def observe(context: GateContext, tools: Tools) -> Observation:
    """Grades of the facts suite, and how often the right option is the likeliest."""
    if not any(s.name == SUITE for s in context.suites):
        return Observation(gate="facts", not_run=f"the probes hold no '{SUITE}' suite")
    answers = tools.transcript(context.subject, SUITE)
    scored = [(a, s) for a in answers if (s := score(a.response)) is not None]
    chosen = sum(s.right for _, s in scored)
    chance = [1 / len(a.response.option_logprobs) for a, _ in scored]
    return Observation(
        gate="facts",
        numbers={
            **counted(answers),
            "n_scored": len(scored),
            "choice_right": chosen,
            "choice_share": round(chosen / len(scored), 4) if scored else None,
            "chance_share": round(sum(chance) / len(chance), 4) if chance else None,
        },
    )


def asked(context: GateContext) -> dict[str, Any]:
    """Which probes, asked and graded how."""
    return {
        **ASKED,
        "grader": GRADER_VERSION,
        "suite": {s.name: s.sha256 for s in context.suites if s.name == SUITE},
    }


GATE = Gate("facts", observe, asked)
