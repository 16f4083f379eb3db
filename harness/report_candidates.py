"""The part of a report that is about candidates: gates, recommendation, where they come from."""

from __future__ import annotations

from collections.abc import Sequence

from harness import tables
from harness.escape import block, cell, folded, visible
from harness.records import CandidateReport, Recommendation, Report, Status
from harness.verdict import SEVERITY

LONGEST_COMMAND = 2000
"""Characters of a command line that a report shows."""

_COUNTED = {
    Status.PASS: "passed every gate",
    Status.WARN: "passed with warnings",
    Status.FAIL: "failed",
    Status.INCONCLUSIVE: "could not be decided",
    Status.NOT_RUN: "not fully run",
    Status.ERROR: "broke",
}
_STANDINGS = (*_COUNTED.values(), "not run")


def candidates_part(report: Report) -> tuple[str, list[str]]:
    """The verdict over all candidates in bold, and what follows it."""
    verdict, body = _candidates_part(report.candidates)
    if report.recommendation is not None:
        body[1:1] = _recommendation_part(report.recommendation)
    return verdict, body


def _candidates_part(candidates: Sequence[CandidateReport]) -> tuple[str, list[str]]:
    named: dict[str, list[str]] = {}
    for candidate in candidates:
        named.setdefault(_standing(candidate), []).append(candidate.name)
    counted = [
        f"{len(names)} {words}" + (f" ({cell(', '.join(names))})" if len(names) <= 3 else "")
        for words in _STANDINGS
        if (names := named.get(words))
    ]
    noun = "candidate" if len(candidates) == 1 else "candidates"
    about = tables.candidates_table(candidates)
    body = [tables.gates_table(candidates), folded("Where the candidates come from", about)]
    for title, table in (
        ("What else was noticed", tables.findings_table(candidates)),
        ("How well they are known without their weights", tables.known_table(candidates)),
    ):
        if table:
            body.append(folded(title, table))
    return f"**{len(candidates)} {noun}: {', '.join(counted)}.**", body


def _recommendation_part(advice: Recommendation) -> list[str]:
    """Which one to train, why not the others, and the command that comes next.

    A lone candidate is not recommended over anything; only what comes next is told.
    """
    measure = "by their answers" if advice.measure == "answers" else "by size"
    chosen = (
        f"**Recommended: {cell(advice.best)}.** Those in the running are ranked {measure}: choose "
        "the biggest capable model that you can train, not the smallest."
        if advice.best
        else "**None of them can be recommended.**"
    )
    step = f"Next: {block(advice.next_step)}."
    if advice.next_command:
        # Indented code: copied as it stands, and no run of backticks can end it.
        step = f"{step[:-1]}:\n\n    {visible(advice.next_command, LONGEST_COMMAND)}"
    if len(advice.ranking) == 1:
        return [step] if advice.best else []
    return [chosen, tables.recommendation_table(advice), step]


def _standing(candidate: CandidateReport) -> str:
    found = {result.status for result in candidate.gates}
    if found <= {Status.NOT_RUN}:
        return "not run"
    return _COUNTED[next(status for status in SEVERITY if status in found)]
