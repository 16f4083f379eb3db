"""Can it say hello?"""

from __future__ import annotations

from collections import Counter
from typing import Any

from harness.gates.context import Gate, GateContext, Tools
from harness.grading import GRADER_VERSION
from harness.records import Observation, Outcome
from harness.transcripts import ASKED

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
    """Which probes, asked and graded how."""
    return {
        **ASKED,
        "grader": GRADER_VERSION,
        "suite": {s.name: s.sha256 for s in context.suites if s.name == SUITE},
    }


GATE = Gate("greetings", observe, asked)
