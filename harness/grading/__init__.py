"""Grading: (probe, response text) → right, wrong or no answer, each with its reason.

Pure: no I/O, no clock, no model. The same probe and text always give the same grade.
"""

from __future__ import annotations

from harness.grading.facts import grade_fact
from harness.grading.free import grade_answer
from harness.grading.greetings import grade_greeting
from harness.records import Grade, Probe

GRADER_VERSION = 3
"""Raised whenever any response may be graded differently; stored answers are then regraded."""

__all__ = ["GRADER_VERSION", "grade", "grade_answer"]


def grade(probe: Probe, text: str) -> Grade:
    """Grades one response with the grader the probe names. Never raises on any text.

    `text` is the generated reply, special tokens removed, otherwise verbatim.
    """
    if probe.grader == "greeting":
        return grade_greeting(probe, text)
    return grade_fact(probe, text)
