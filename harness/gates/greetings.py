"""Can it say hello?"""

from __future__ import annotations

from typing import Any

from harness.gates.context import Gate, GateContext, Tools, counted
from harness.grading import GRADER_VERSION
from harness.records import Observation
from harness.transcripts import ASKED

SUITE = "greetings"


def observe(context: GateContext, tools: Tools) -> Observation:
    """Grades of the greetings suite, counted."""
    if not any(s.name == SUITE for s in context.suites):
        return Observation(gate="greetings", not_run=f"the probes hold no '{SUITE}' suite")
    answers = tools.transcript(context.subject, SUITE)
    return Observation(gate="greetings", numbers=counted(answers))


def asked(context: GateContext) -> dict[str, Any]:
    """Which probes, asked and graded how."""
    return {
        **ASKED,
        "grader": GRADER_VERSION,
        "suite": {s.name: s.sha256 for s in context.suites if s.name == SUITE},
    }


GATE = Gate("greetings", observe, asked)
