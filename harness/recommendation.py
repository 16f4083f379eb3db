"""Which of the vetted candidates to train: the biggest capable one that passes. Pure.

Choosing the smallest that runs is the usual mistake: a model too weak to learn wastes the night
as surely as one that does not fit. So those that pass every gate are ranked by what they can do:
by their answers where all of them were asked, else by their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.records import (
    CandidateReport,
    Depth,
    GateResult,
    Ranked,
    Recommendation,
    Status,
)

_BARRING = (Status.FAIL, Status.ERROR, Status.INCONCLUSIVE)
_NEXT: dict[Depth, tuple[str, str]] = {
    "header": (
        "prove its whole pipeline, from training to GGUF, still without its weights",
        "harness vet {name} --depth twin",
    ),
    "twin": (
        "fetch its weights, measure the memory of a real step and ask it the questions",
        "harness vet {name} --download",
    ),
    "full": (
        "train it, then see what the adapter lost",
        "harness compare {name} --adapter FOLDER --gguf",
    ),
}
"""What follows each depth, as prose and as a command."""


def recommend(candidates: Sequence[CandidateReport]) -> Recommendation | None:
    """Rank the candidates; None where there are none.

    A candidate is in the running if at least one gate passed and none failed, broke or stayed
    undecided. Gates that did not run do not bar it, but its reason names them.
    """
    if not candidates:
        return None
    running = [c for c in candidates if _is_running(c)]
    by_answers = bool(running) and all(_facts_share(c) is not None for c in running)
    ordered = sorted(running, key=lambda c: _merit(c, by_answers), reverse=True)
    ranking = [
        Ranked(name=c.name, place=place, reason=_standing(c, ordered[0], by_answers))
        for place, c in enumerate(ordered, start=1)
    ]
    ranking += [
        Ranked(name=c.name, place=None, reason=_out(c)) for c in candidates if not _is_running(c)
    ]
    step, command = _next_step(ordered[0] if ordered else None)
    return Recommendation(
        best=ordered[0].name if ordered else None,
        measure="answers" if by_answers else "parameters",
        ranking=tuple(ranking),
        next_step=step,
        next_command=command,
    )


def _is_running(candidate: CandidateReport) -> bool:
    found = {result.status for result in candidate.gates}
    return bool(found & {Status.PASS, Status.WARN}) and not found & set(_BARRING)


def _merit(candidate: CandidateReport, by_answers: bool) -> tuple[float, float]:
    share = (_facts_share(candidate) or 0.0) if by_answers else 0.0
    return share, _number(candidate, "load", "parameters") or 0.0


def _facts_share(candidate: CandidateReport) -> float | None:
    asked = _number(candidate, "facts", "n")
    right = _number(candidate, "facts", "right")
    return right / asked if asked and right is not None else None


def _number(candidate: CandidateReport, gate: str, key: str) -> float | None:
    for result in candidate.gates:
        if result.gate == gate:
            value: Any = result.numbers.get(key)
            return float(value) if isinstance(value, int | float) else None
    return None


def _standing(candidate: CandidateReport, best: CandidateReport, by_answers: bool) -> str:
    """What it can do, what the winner has over it, and what nobody looked at."""
    clauses = [_measured(candidate, by_answers)]
    if candidate is not best:
        clauses.append(
            f"{best.name} answers more of the facts"
            if by_answers and _merit(candidate, True)[0] < _merit(best, True)[0]
            else f"{best.name} is larger and passes too"
        )
    warned = [result.gate for result in candidate.gates if result.status is Status.WARN]
    unseen = [result.gate for result in candidate.gates if result.status is Status.NOT_RUN]
    if warned:
        clauses.append(f"warnings at {', '.join(warned)}")
    if unseen:
        clauses.append(f"not run: {', '.join(unseen)}")
    return "; ".join(clauses)


def _measured(candidate: CandidateReport, by_answers: bool) -> str:
    parameters = _number(candidate, "load", "parameters")
    size = "of unknown size" if parameters is None else f"{parameters / 1e9:.2f} B parameters"
    share = _facts_share(candidate)
    return f"{100 * share:.0f} % of the facts, {size}" if by_answers and share is not None else size


def _out(candidate: CandidateReport) -> str:
    """The worst gate first: a person mends that one, or gives the candidate up for it."""
    for status in _BARRING:
        results = [result for result in candidate.gates if result.status is status]
        if results:
            more = f" (and at {', '.join(r.gate for r in results[1:])})" if results[1:] else ""
            return f"{status.value} at {results[0].gate}{more}: {_with_fix(results[0])}"
    reasons = {result.reason for result in candidate.gates}
    return f"not run: {'; '.join(sorted(reasons))}" if reasons else "no gate looked at it"


def _with_fix(result: GateResult) -> str:
    fix = f"; fix: {result.fix}" if result.fix else ""
    return f"{result.reason}{fix}"


def _next_step(best: CandidateReport | None) -> tuple[str, str | None]:
    if best is None:
        return "mend the nearest miss, or add another base to the registry", None
    step, command = _NEXT[best.depth]
    return step, command.format(name=best.name)
