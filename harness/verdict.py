"""From evidence to verdicts. Pure: no I/O, no clock; every threshold comes from the policy.

A loss must be both significant and big to FAIL. A loss that is only one of the two WARNs.
Seeing no loss is a PASS only where a loss worth fearing would have been seen; otherwise the
verdict is INCONCLUSIVE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from harness.policy import Policy, SuitePolicy
from harness.records import GateResult, Observation, Scalar, Status, SuiteComparison

Judged: TypeAlias = tuple[Status, str]
"""A status, and one clause with the numbers behind it."""
Judge: TypeAlias = Callable[[dict[str, Scalar], Policy], Judged]
"""What every gate brings: its numbers and a policy → a status with its reason."""

EXIT_CODES = {
    Status.PASS: 0,
    Status.WARN: 0,
    Status.FAIL: 1,
    Status.INCONCLUSIVE: 3,
    Status.NOT_RUN: 3,
    Status.ERROR: 4,
}
"""Exit code of a verdict. Nothing at all having run leaves the question open, hence 3."""

SEVERITY = (
    Status.FAIL,
    Status.ERROR,
    Status.WARN,
    Status.INCONCLUSIVE,
    Status.NOT_RUN,
    Status.PASS,
)
"""In the order in which reasons are told."""


def judge_suite(stats: SuiteComparison, policy: Policy) -> SuiteComparison:
    """The same statistics with verdict and reasons filled in."""
    limits = policy.suite(stats.suite)
    told = [*_answers(stats, limits), *_options(stats, limits)]
    if not told:
        told = [_nothing_seen(stats, limits)]
    told.sort(key=lambda item: SEVERITY.index(item[0]))
    return stats.model_copy(
        update={"verdict": told[0][0], "reasons": tuple(reason for _, reason in told)}
    )


def judge_gate(observation: Observation, policy: Policy, judge: Judge) -> GateResult:
    """Observation → status with its reason. What did not run is never passed or failed.

    Args:
        judge: the gate's own reading of its numbers.
    """
    gate = observation.gate
    if observation.error is not None:
        last = observation.error.strip().splitlines()[-1]
        return GateResult(gate=gate, status=Status.ERROR, reason=f"it broke off: {last}")
    if observation.not_run is not None:
        return GateResult(gate=gate, status=Status.NOT_RUN, reason=observation.not_run)
    failed = [f for f in observation.findings if f.severity == "fail"]
    if failed:
        return GateResult(
            gate=gate,
            status=Status.FAIL,
            reason=failed[0].message,
            fix=failed[0].fix,
            numbers=observation.numbers,
        )
    try:
        status, reason = judge(observation.numbers, policy)
    except (KeyError, TypeError) as missing:
        return GateResult(
            gate=gate,
            status=Status.ERROR,
            reason=f"the gate's evidence lacks what its verdict needs ({missing})",
            numbers=observation.numbers,
        )
    warned = [f for f in observation.findings if f.severity == "warn"]
    fix = None
    if warned:
        fix = warned[0].fix
        reason = "; ".join([reason, *(f.message for f in warned)])
        status = Status.WARN if status is Status.PASS else status
    return GateResult(gate=gate, status=status, reason=reason, fix=fix, numbers=observation.numbers)


def number(numbers: dict[str, Scalar], key: str) -> float:
    """The number behind `key`. Raises KeyError or TypeError where there is none."""
    value = numbers[key]
    if not isinstance(value, int | float):
        raise TypeError(f"'{key}' is not a number")
    return float(value)


def judge_comparison(
    suites: Sequence[SuiteComparison], gates: Sequence[GateResult], policy: Policy
) -> tuple[Status, int, tuple[str, ...]]:
    """(verdict, exit code, reasons with the most important first) of one adapter.

    FAIL outweighs all; a suite that broke is an ERROR; a warning outweighs an inconclusive
    suite, since it says more. Without a suite that ran there is nothing to pass.
    """
    told = [(s.verdict, r) for s in suites for r in s.reasons]
    told += [(g.status, f"{g.gate}: {g.reason}") for g in gates]
    told.sort(key=lambda item: SEVERITY.index(item[0]))
    statuses = [s.verdict for s in suites] + [
        g.status for g in gates if g.status is not Status.NOT_RUN
    ]
    order = (Status.FAIL, Status.ERROR, Status.WARN, Status.INCONCLUSIVE, Status.PASS)
    verdict = next((s for s in order if s in statuses), Status.NOT_RUN)
    code = EXIT_CODES[verdict]
    if verdict is Status.WARN and policy.comparison.warn_is_fail:
        code = 1
    return verdict, code, tuple(reason for _, reason in told)


def exit_code_of(statuses: Iterable[Status]) -> int:
    """Exit code of many verdicts: a FAIL is news whatever else broke, then ERROR, then open."""
    seen = set(statuses)
    for status in (Status.FAIL, Status.ERROR, Status.INCONCLUSIVE, Status.NOT_RUN):
        if status in seen:
            return EXIT_CODES[status]
    return 0 if seen else EXIT_CODES[Status.NOT_RUN]


def _answers(stats: SuiteComparison, limits: SuitePolicy) -> list[tuple[Status, str]]:
    """What the generated answers say; nothing where the base knew too little to lose."""
    known = round(stats.before * stats.n)
    if known < limits.min_known or stats.lost <= stats.gained:
        return []
    net = stats.lost - stats.gained
    drop, share = net / stats.n, net / known
    big = drop >= limits.fail_drop or share >= limits.fail_lost_share
    told = (
        f"{stats.suite}: {known} of {stats.n} right before, {known - net} after "
        f"(lost {stats.lost}, gained {stats.gained}; one-sided exact McNemar "
        f"p = {stats.p_value:.2g}"
    )
    if stats.p_value <= limits.alpha_fail and big:
        return [
            (
                Status.FAIL,
                f"{told}, limit {limits.alpha_fail:g}); {share:.0%} of what it could do is gone "
                f"(limit {limits.fail_drop:.0%} of the probes or {limits.fail_lost_share:.0%} of "
                "what it knew).",
            )
        ]
    if stats.p_value <= limits.alpha_warn:
        return [(Status.WARN, f"{told}, warning at {limits.alpha_warn:g}): a small loss.")]
    if drop >= limits.warn_drop and stats.mde <= limits.max_mde:
        return [
            (
                Status.WARN,
                f"{told}): a drop of {drop:.1%} of the probes (warning at "
                f"{limits.warn_drop:.0%}), which may still be noise.",
            )
        ]
    return []


def _options(stats: SuiteComparison, limits: SuitePolicy) -> list[tuple[Status, str]]:
    """What the option log-probabilities say."""
    if stats.n_scored < limits.min_scored:
        return []
    told = []
    net = stats.choice_lost - stats.choice_gained
    drop = net / stats.n_scored
    if stats.choice_p is not None and stats.choice_p <= limits.alpha_warn and net > 0:
        failed = stats.choice_p <= limits.alpha_fail and drop >= limits.fail_choice_drop
        told.append(
            (
                Status.FAIL if failed else Status.WARN,
                f"{stats.suite}: the right option was preferred on {stats.choice_before:.0%} of "
                f"{stats.n_scored} probes before, {stats.choice_after:.0%} after (lost "
                f"{stats.choice_lost}, gained {stats.choice_gained}; p = {stats.choice_p:.2g}, "
                f"limit {limits.alpha_fail:g} with a drop of {limits.fail_choice_drop:.0%}).",
            )
        )
    told += _margin(stats, limits)
    return told


def _margin(stats: SuiteComparison, limits: SuitePolicy) -> list[tuple[Status, str]]:
    change, effect, p = stats.margin_change, stats.margin_d, stats.margin_p
    if change is None or effect is None or p is None:
        return []
    for status, nats, d, alpha in (
        (Status.FAIL, limits.margin_fail_nats, limits.margin_fail_d, limits.alpha_fail),
        (Status.WARN, limits.margin_warn_nats, limits.margin_warn_d, limits.alpha_warn),
    ):
        if p <= alpha and change <= -nats and effect <= -d:
            return [
                (
                    status,
                    f"{stats.suite}: the right answer's lead in log-probability over the wrong "
                    f"ones changed by {change:+.2f} nats per token, {effect:+.2f} standard "
                    f"deviations (p = {p:.2g}; limits −{nats:g} and −{d:g}).",
                )
            ]
    return []


def _nothing_seen(stats: SuiteComparison, limits: SuitePolicy) -> tuple[Status, str]:
    known = round(stats.before * stats.n)
    now = round(stats.after * stats.n)
    told = f"{stats.suite}: {known} of {stats.n} right before, {now} after"
    if known < limits.min_known:
        if stats.n_scored >= limits.min_scored:
            return Status.PASS, (
                f"{told}; the base knew too little to judge by its answers, and among the options "
                f"the right one kept its lead ({stats.choice_before:.0%} → "
                f"{stats.choice_after:.0%})."
            )
        return Status.INCONCLUSIVE, (
            f"{told}: the base knew too little to lose (fewer than {limits.min_known} right); ask "
            "more probes or easier ones."
        )
    if stats.mde > limits.max_mde:
        return Status.INCONCLUSIVE, (
            f"{told}: no loss seen, but only a drop of {stats.mde:.0%} or more would have been "
            f"(limit {limits.max_mde:.0%}); ask more probes."
        )
    return Status.PASS, (
        f"{told} (lost {stats.lost}, gained {stats.gained}); a drop of {stats.mde:.0%} would have "
        "been seen."
    )
