"""Evidence → verdict: what the statistics of a comparison come to, and with which exit code. Pure.

Three signals judge a suite: the graded answers, the choice among options, and the margin of the
right option. Each comes to a status and one sentence; the worst status is the suite's. Gates are
judged in `judges/`; all thresholds are in `policy.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import NamedTuple

from harness.forgetting import minimum_detectable_drop
from harness.judges import judge_gate
from harness.policy import Policy, SuitePolicy
from harness.records import GateResult, Status, SuiteComparison

__all__ = [
    "EXIT_CODES",
    "SEVERITY",
    "exit_code_of",
    "judge_comparison",
    "judge_gate",
    "judge_suite",
]

EXIT_CODES = {
    Status.PASS: 0,
    Status.WARN: 0,
    Status.FAIL: 1,
    Status.INCONCLUSIVE: 3,
    Status.NOT_RUN: 3,
    Status.ERROR: 4,
}

SEVERITY = (
    Status.FAIL,
    Status.ERROR,
    Status.INCONCLUSIVE,
    Status.NOT_RUN,
    Status.WARN,
    Status.PASS,
)
"""Worst first. A failure that was seen stays one, whatever broke beside it. INCONCLUSIVE
outranks WARN: otherwise one more warning would turn exit code 3 into 0."""


class Signal(NamedTuple):
    """What one kind of evidence says about a suite."""

    status: Status
    reason: str


def exit_code_of(statuses: Iterable[Status]) -> int:
    """Exit code of several results: any FAIL → 1, else any ERROR → 4, else any INCONCLUSIVE or
    NOT_RUN → 3, else 0. Nothing at all → 3, since nothing was shown.
    """
    return EXIT_CODES[min(statuses, key=SEVERITY.index, default=Status.NOT_RUN)]


def judge_suite(stats: SuiteComparison, policy: Policy) -> SuiteComparison:
    """`stats` with verdict and reasons, worst reason first.

    FAIL needs a loss that is both significant and big, in the answers, the choices or the
    margins. Statistics that contradict themselves or are not finite come out as ERROR.
    """
    limits = policy.suite(stats.suite)
    fault = _fault(stats)
    if fault is not None:
        reason = f"{stats.suite}: the statistics are unusable ({fault}); run the comparison again."
        return stats.model_copy(update={"verdict": Status.ERROR, "reasons": (reason,)})
    signals = [_judge_answers(stats, limits)]
    if stats.n_scored:
        signals += [_judge_choices(stats, limits), _judge_margins(stats, limits)]
    signals.sort(key=lambda signal: SEVERITY.index(signal.status))
    reasons = tuple(f"{stats.suite}: {signal.reason}" for signal in signals)
    return stats.model_copy(update={"verdict": signals[0].status, "reasons": reasons})


def judge_comparison(
    suites: Sequence[SuiteComparison], gates: Sequence[GateResult], policy: Policy
) -> tuple[Status, int, tuple[str, ...]]:
    """Verdict, exit code and reasons of a whole comparison of judged suites and gates.

    The worst status wins, in the order of `SEVERITY`; a gate that did not run, or a comparison
    without any suite, leaves it INCONCLUSIVE. Reasons come worst first, each owner's main reason
    before anyone's second.
    """
    owners = [(suite.verdict, suite.reasons) for suite in suites]
    owners += [(gate.status, (f"{gate.gate}: {gate.reason}",)) for gate in gates]
    if not suites:
        owners.append((Status.INCONCLUSIVE, ("No suite was compared, so nothing was shown.",)))
    ranked = sorted(
        (
            (SEVERITY.index(status), place, reason)
            for status, reasons in owners
            for place, reason in enumerate(reasons)
        ),
        key=lambda entry: entry[:2],
    )
    reasons = tuple(dict.fromkeys(reason for _, _, reason in ranked))
    verdict = min((status for status, _ in owners), key=SEVERITY.index)
    if verdict is Status.NOT_RUN:
        verdict = Status.INCONCLUSIVE
    if verdict is Status.WARN and policy.comparison.warn_is_fail:
        verdict = Status.FAIL
        reasons = ("This policy counts a warning as a failure (warn_is_fail).", *reasons)
    return verdict, EXIT_CODES[verdict], reasons


def _judge_answers(stats: SuiteComparison, limits: SuitePolicy) -> Signal:
    """Significant and big → FAIL; significant → WARN; then whether a loss could have shown."""
    n, known = stats.n, round(stats.before * stats.n)
    drop = (stats.lost - stats.gained) / n if n else 0.0
    lost_share = stats.lost / known if known else 0.0
    facts = (
        f"{known} of {n} right before, {round(stats.after * n)} after (lost {stats.lost}, "
        f"gained {stats.gained}; p = {stats.p_value:.2g}"
    )
    if stats.no_answer_after != stats.no_answer_before:
        facts += f"; replies without an answer {stats.no_answer_before} → {stats.no_answer_after}"
    big = None
    if drop >= limits.fail_drop:
        big = f"a net loss of {_percent(drop)}, FAIL from {_percent(limits.fail_drop)} on."
    elif lost_share >= limits.fail_lost_share:
        limit = _percent(limits.fail_lost_share)
        big = f"{_percent(lost_share)} of what it knew is gone, FAIL from {limit} on."
    if (loss := _significant(stats.p_value, big, facts, limits)) is not None:
        return loss
    return _without_loss(stats, limits, f"{facts})", known, drop)


def _significant(p: float, big: str | None, facts: str, limits: SuitePolicy) -> Signal | None:
    """FAIL if a loss is significant and `big` says how big, WARN if only significant."""
    if p <= limits.alpha_fail and big is not None:
        return Signal(Status.FAIL, f"{facts}; limit {limits.alpha_fail}): {big}")
    if p > limits.alpha_warn:
        return None
    why = "too small to FAIL" if big is None else f"not sure enough to FAIL (p {limits.alpha_fail})"
    return Signal(Status.WARN, f"{facts}; limit {limits.alpha_warn}): beyond noise, but {why}.")


def _without_loss(
    stats: SuiteComparison, limits: SuitePolicy, facts: str, known: int, drop: float
) -> Signal:
    """No significant loss: would the suite have shown one?"""
    if known < limits.min_known:
        few = f"{facts}: with fewer than {limits.min_known} right before there is little to lose"
        if _options_decide(stats, limits):
            return Signal(Status.PASS, f"{few}, so the options decide.")
        return Signal(Status.INCONCLUSIVE, f"{few}, and too few scored options to decide instead.")
    if stats.mde > limits.max_mde and stats.ci[0] <= -limits.fail_drop:
        return Signal(
            Status.INCONCLUSIVE,
            f"{facts}: only a drop of {_percent(stats.mde)} would have shown reliably (limit "
            f"{_percent(limits.max_mde)}), and one of {_percent(-stats.ci[0])} cannot be ruled "
            "out; ask more probes.",
        )
    if drop >= limits.warn_drop:
        return Signal(
            Status.WARN,
            f"{facts}: a drop of {_percent(drop)} (WARN from {_percent(limits.warn_drop)} on), "
            "though it may be noise.",
        )
    return Signal(
        Status.PASS,
        f"{facts}: no loss beyond noise; a drop of {_percent(stats.mde)} would have shown.",
    )


def _options_decide(stats: SuiteComparison, limits: SuitePolicy) -> bool:
    mde = minimum_detectable_drop(stats.n_scored, stats.choice_lost + stats.choice_gained)
    return stats.n_scored >= limits.min_scored and mde <= limits.max_mde


def _judge_choices(stats: SuiteComparison, limits: SuitePolicy) -> Signal:
    n, p = stats.n_scored, stats.choice_p
    assert stats.choice_before is not None and stats.choice_after is not None and p is not None
    drop = (stats.choice_lost - stats.choice_gained) / n
    facts = (
        f"the right option is the likeliest on {round(stats.choice_before * n)} of {n} probes "
        f"before, {round(stats.choice_after * n)} after (lost {stats.choice_lost}, gained "
        f"{stats.choice_gained}; p = {p:.2g}"
    )
    big = None
    if drop >= limits.fail_choice_drop:
        big = f"a net loss of {_percent(drop)}, FAIL from {_percent(limits.fail_choice_drop)} on."
    if (loss := _significant(p, big, facts, limits)) is not None:
        return loss
    return Signal(Status.PASS, f"{facts}): no loss beyond noise.")


def _judge_margins(stats: SuiteComparison, limits: SuitePolicy) -> Signal:
    change, p, d = stats.margin_change, stats.margin_p, stats.margin_d
    assert change is not None and p is not None
    size = f"{abs(change):.2g} nats/token"
    if d is not None:
        size += f" ({abs(d):.2g} standard deviations)"
    if change >= 0:
        return Signal(Status.PASS, f"the margin of the right option did not fall (+{size}).")
    facts = f"the margin of the right option fell by {size}, p = {p:.2g}"

    def beyond(alpha: float, nats: float, spreads: float) -> bool:
        # Without spread every probe fell by the same amount: then the amount alone decides.
        return p <= alpha and change <= -nats and (d is None or d <= -spreads)

    if beyond(limits.alpha_fail, limits.margin_fail_nats, limits.margin_fail_d):
        return Signal(
            Status.FAIL,
            f"{facts}; FAIL from {limits.margin_fail_nats} nats/token and {limits.margin_fail_d} "
            "standard deviations on.",
        )
    if beyond(limits.alpha_warn, limits.margin_warn_nats, limits.margin_warn_d):
        return Signal(
            Status.WARN,
            f"{facts}; WARN from {limits.margin_warn_nats} nats/token and {limits.margin_warn_d} "
            "standard deviations on.",
        )
    return Signal(Status.PASS, f"{facts}; too little or too uncertain to matter.")


def _fault(stats: SuiteComparison) -> str | None:
    """Why the statistics cannot be judged, or None. Every threshold lets NaN pass."""
    options = (stats.choice_before, stats.choice_after, stats.choice_p)
    margins = (stats.margin_change, stats.margin_p)
    if stats.n_scored and None in (*options, *margins):
        return f"{stats.n_scored} probes were scored but their statistics are missing"
    numbers = (stats.before, stats.after, stats.p_value, stats.mde, *stats.ci, stats.margin_d)
    if not all(isfinite(number) for number in (*numbers, *options, *margins) if number is not None):
        return "a number is not finite"
    known, right_after = round(stats.before * stats.n), round(stats.after * stats.n)
    if not 0 <= stats.lost <= known <= stats.n or known - stats.lost + stats.gained != right_after:
        return (
            f"{known} right before, {stats.lost} lost, {stats.gained} gained and {right_after} "
            f"right after of {stats.n} do not add up"
        )
    return None


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
