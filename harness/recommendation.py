"""Which of the vetted candidates to train: the biggest capable one that passes. Pure.

Choosing the smallest that runs is the usual mistake: a model too weak to learn wastes the night
as surely as one that does not fit. So those that pass every gate are ranked by what they can do:
by their answers where all of them were asked, else by their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.judges.common import millions
from harness.records import CandidateReport, GateResult, Ranked, Recommendation, Status

_BARRING = (Status.FAIL, Status.ERROR, Status.INCONCLUSIVE)
_NEEDED = ("load", "gguf")
"""Gates without which nothing is known of a candidate: one that did not run bars it."""
_LOCAL = "--model-dir "


def recommend(candidates: Sequence[CandidateReport]) -> Recommendation | None:
    """Rank the candidates; None where there are none.

    In the running is a candidate with no gate that failed, broke or stayed undecided, and with the
    needed ones passed. Other gates that did not run do not bar it, but its reason names them. Ties
    go to the one with fewer warnings, then to the one that is better known, then by name.
    """
    if not candidates:
        return None
    running = [c for c in candidates if _is_running(c)]
    by_answers = bool(running) and all(_share(c, "facts") is not None for c in running)
    ordered = sorted(running, key=lambda c: (*(-m for m in _merit(c, by_answers)), *_doubts(c)))
    ranking = [
        Ranked(name=c.name, place=place, reason=_standing(c, ordered[0], by_answers))
        for place, c in enumerate(ordered, start=1)
    ]
    ranking += [
        Ranked(name=c.name, place=None, reason=_out(c)) for c in candidates if c not in running
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
    found = {result.gate: result.status for result in candidate.gates}
    looked_at = {gate for gate, status in found.items() if status in (Status.PASS, Status.WARN)}
    needed = {gate for gate in _NEEDED if gate in found} or set(found)
    return bool(looked_at) and needed <= looked_at and not set(found.values()) & set(_BARRING)


def _merit(candidate: CandidateReport, by_answers: bool) -> tuple[float, ...]:
    """What counts, most important first: facts, greetings (both 0 where unasked), parameters."""
    size = _number(candidate, "load", "parameters") or 0.0
    if not by_answers:
        return 0.0, 0.0, size
    return _share(candidate, "facts") or 0.0, _share(candidate, "greetings") or 0.0, size


def _doubts(candidate: CandidateReport) -> tuple[int, int, str]:
    """What breaks a tie: fewer is better."""
    warned = sum(result.status is Status.WARN for result in candidate.gates)
    trusted = sum(known.standing == "unverified" for known in candidate.known.values())
    return warned, trusted, candidate.name


def _share(candidate: CandidateReport, gate: str) -> float | None:
    asked, right = _number(candidate, gate, "n"), _number(candidate, gate, "right")
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
        clauses.append(_lost_by(_merit(candidate, by_answers), _merit(best, by_answers), best.name))
    warned = [result.gate for result in candidate.gates if result.status is Status.WARN]
    unseen = [result.gate for result in candidate.gates if result.status is Status.NOT_RUN]
    if warned:
        clauses.append(f"warnings at {', '.join(warned)}")
    if unseen:
        clauses.append(f"not run: {', '.join(unseen)}")
    return "; ".join(clauses)


def _lost_by(own: tuple[float, ...], best: tuple[float, ...], name: str) -> str:
    for mine, its, what in zip(
        own,
        best,
        ("answers more of the facts", "answers more greetings", "is larger"),
        strict=True,
    ):
        if its > mine:
            return f"{name} {what} and passes too"
    return f"{name} is as good, with fewer warnings or better known"


def _measured(candidate: CandidateReport, by_answers: bool) -> str:
    parameters = _number(candidate, "load", "parameters")
    size = "of unknown size" if parameters is None else f"{millions(round(parameters))} parameters"
    share = _share(candidate, "facts")
    return f"{100 * share:.0f} % of the facts, {size}" if by_answers and share is not None else size


def _out(candidate: CandidateReport) -> str:
    """The worst gate first: a person mends that one, or gives the candidate up for it."""
    for status in _BARRING:
        results = [result for result in candidate.gates if result.status is status]
        if results:
            more = f" (and at {', '.join(r.gate for r in results[1:])})" if results[1:] else ""
            return f"{status.value} at {results[0].gate}{more}: {_with_fix(results[0])}"
    unseen = [result for result in candidate.gates if result.status is Status.NOT_RUN]
    reasons = dict.fromkeys(result.reason for result in unseen)
    return f"not run: {'; '.join(reasons)}" if reasons else "no gate looked at it"


def _with_fix(result: GateResult) -> str:
    fix = f"; fix: {result.fix}" if result.fix else ""
    return f"{result.reason}{fix}"


def _next_step(best: CandidateReport | None) -> tuple[str, str | None]:
    """What follows the winner's depth, as prose and as a command."""
    if best is None:
        return "mend the nearest miss, or add another base to the registry", None
    target = best.target or best.name
    if best.depth == "header":
        step = "prove its whole pipeline, from training to GGUF, still without its weights"
        return step, f"harness vet {target} --depth twin"
    if best.depth == "twin":
        weights = "--depth full" if target.startswith(_LOCAL) else "--download"
        step = "fetch its weights, measure the memory of a real step and ask it the questions"
        return step, f"harness vet {target} {weights}"
    step = "train it, then see what the adapter lost"
    return step, f"harness compare {target.removeprefix(_LOCAL)} --adapter FOLDER --gguf"
