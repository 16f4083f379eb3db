"""What was lost between two subjects: flips, exact tests, intervals. Pure.

Two signals, from the same probes asked twice:

* flips: the graded answer was right before and is not after (or the reverse);
* choice and margin: how likely the subject finds the gold option against its distractors. It
  is continuous and does not depend on the grader, so it sees damage long before answers flip.

Statistics only; what they amount to is decided in `verdict.py`. No function returns NaN or an
infinity: what cannot be computed is None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import isfinite, sqrt
from statistics import fmean, stdev

import numpy as np
from scipy import stats

from harness.errors import EvidenceError
from harness.records import (
    Answered,
    Flip,
    Outcome,
    PairedProbe,
    Record,
    Response,
    SuiteComparison,
)

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""

_NO_SPREAD = 1e-9
"""Standard deviation in nats per token under which differences count as constant."""

_FLIPS = {
    (True, True): Flip.KEPT,
    (True, False): Flip.LOST,
    (False, True): Flip.GAINED,
    (False, False): Flip.STILL_WRONG,
}


class Scores(Record):
    """Option scores of one response, in nats per token."""

    right: bool
    """The gold option is strictly the likeliest per token; a tie is not right."""
    margin: float
    """log p(gold) − mean log p(distractors), each divided by its number of tokens."""


class Choice(Record):
    """Choice and margin of a suite: the fields of the same names in `SuiteComparison`."""

    n_scored: int = 0
    choice_before: float | None = None
    choice_after: float | None = None
    choice_lost: int = 0
    choice_gained: int = 0
    choice_p: float | None = None
    margin_change: float | None = None
    margin_ci: tuple[float, float] | None = None
    margin_p: float | None = None
    margin_d: float | None = None


def pair(before: Sequence[Answered], after: Sequence[Answered]) -> tuple[PairedProbe, ...]:
    """Match two transcripts of one suite by probe id, in the order of `before`.

    Raises EvidenceError where a probe is answered twice, by one subject only, or where its
    definition differs between the two.
    """
    first, second = _by_id(before, "before"), _by_id(after, "after")
    missing = sorted(first.keys() ^ second.keys())
    if missing:
        side = "after" if missing[0] in first else "before"
        raise EvidenceError(
            f"The two transcripts cannot be paired: {len(missing)} probe(s) were answered by one "
            f"subject only, '{missing[0]}' is missing {side}; run the comparison again to complete "
            "both."
        )
    pairs = zip(first.values(), (second[probe_id] for probe_id in first), strict=True)
    return tuple(_pair_one(old, new) for old, new in pairs)


def compare_suite(suite: str, pairs: Iterable[PairedProbe]) -> SuiteComparison:
    """The paired statistics of one suite; verdict and reasons are left to `verdict.py`.

    The order of `pairs` does not matter. Without a single pair the interval is (−1, 1), p and
    the minimum detectable effect are 1. Raises EvidenceError on unusable log-probabilities.
    """
    pairs = sorted(pairs, key=lambda paired: paired.probe.id)
    n = len(pairs)
    flips = Counter(paired.flip for paired in pairs)
    kept, lost, gained = flips[Flip.KEPT], flips[Flip.LOST], flips[Flip.GAINED]
    return SuiteComparison(
        suite=suite,
        n=n,
        before=(kept + lost) / n if n else 0.0,
        after=(kept + gained) / n if n else 0.0,
        lost=lost,
        gained=gained,
        p_value=mcnemar_p(lost, gained),
        ci=newcombe_ci(kept, lost, gained, n - kept - lost - gained),
        mde=minimum_detectable_drop(n, lost + gained),
        no_answer_before=sum(p.before.grade.outcome is Outcome.NO_ANSWER for p in pairs),
        no_answer_after=sum(p.after.grade.outcome is Outcome.NO_ANSWER for p in pairs),
        **dict(compare_choices(pairs)),
    )


def mcnemar_p(lost: int, gained: int) -> float:
    """One-sided exact McNemar test: P(X ≥ lost) for X ~ Binomial(lost + gained, ½).

    Only discordant pairs carry information; without any, p is 1. Source: McNemar, Psychometrika
    12 (1947) 153–157, with the exact conditional distribution instead of χ².
    """
    if lost + gained == 0:
        return 1.0
    p = float(stats.binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue)
    return min(p, 1.0)


def wilson_ci(right: int, n: int) -> tuple[float, float]:
    """95 % score interval of a share: (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n).

    (0, 1) for n = 0. Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209–212.
    """
    if n == 0:
        return 0.0, 1.0
    share, z2 = right / n, Z95 * Z95
    centre = share + z2 / (2 * n)
    half = Z95 * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    scale = 1 + z2 / n
    # Rounding must not put the observed share outside its own interval at 0/n and n/n.
    low, high = (centre - half) / scale, (centre + half) / scale
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def newcombe_ci(kept: int, lost: int, gained: int, still_wrong: int) -> tuple[float, float]:
    """95 % interval of the paired difference after − before of two shares.

    Square-and-add of the two Wilson intervals with a continuity-corrected correlation: Newcombe,
    Statistics in Medicine 17 (1998) 2635–2650, method 10. With p₁ = after, p₂ = before, Wilson
    limits (l, u) of each, D = p₁ − p₂ and φ their correlation:

        lower = D − √((p₁−l₁)² − 2φ(p₁−l₁)(u₂−p₂) + (u₂−p₂)²)
        upper = D + √((u₁−p₁)² − 2φ(u₁−p₁)(p₂−l₂) + (p₂−l₂)²)

    φ = (ad − bc)/√(product of the four margins), where a positive ad − bc is first lowered by
    n/2, at most to 0; φ = 0 where a margin is empty. (−1, 1) without pairs.
    """
    n = kept + lost + gained + still_wrong
    if n == 0:
        return -1.0, 1.0
    p1, p2 = (kept + gained) / n, (kept + lost) / n
    (l1, u1), (l2, u2) = wilson_ci(kept + gained, n), wilson_ci(kept + lost, n)
    phi = _phi(kept, lost, gained, still_wrong)
    difference = (gained - lost) / n
    below = _square_and_add(p1 - l1, u2 - p2, phi)
    above = _square_and_add(u1 - p1, p2 - l2, phi)
    return max(-1.0, difference - below), min(1.0, difference + above)


def minimum_detectable_drop(n: int, discordant: int) -> float:
    """Smallest drop that n probes show with 80 % power, as a share of the probes, 0–1.

    2.8·√(ψ/n), where 2.8 = z(0.975) + z(0.80) and ψ = discordant/n estimates the variance of one
    paired difference (Connor, Biometrics 43 (1987) 207–211). Zero flips seen is not zero flips
    possible: at least 3/n, the 95 % upper bound of a rate never observed ("rule of three",
    Hanley & Lippman-Hand, JAMA 249 (1983) 1743–1745). At most 1; 1 for n = 0.
    """
    if n == 0:
        return 1.0
    return min(1.0, max(2.8 * sqrt(discordant / n / n), 3 / n))


def score(response: Response) -> Scores | None:
    """Choice and margin of one response, gold option first; None below two options.

    Log-probabilities are divided by the number of tokens of their option, else the shortest
    option would win. Raises EvidenceError where the numbers cannot be used.
    """
    logprobs, tokens = response.option_logprobs, response.option_tokens
    if len(logprobs) < 2:
        return None
    if len(logprobs) != len(tokens) or min(tokens) < 1:
        raise EvidenceError(
            f"Probe '{response.probe_id}': {len(logprobs)} option log-probabilities but token "
            f"counts {list(tokens)}; the stored response is damaged, delete it and run again."
        )
    if not all(isfinite(value) for value in logprobs):
        raise EvidenceError(
            f"Probe '{response.probe_id}': an option's log-probability is not a finite number; the "
            "weights are probably broken (training diverged), train again with a lower learning "
            "rate."
        )
    gold, *distractors = (value / count for value, count in zip(logprobs, tokens, strict=True))
    return Scores(right=gold > max(distractors), margin=gold - fmean(distractors))


def compare_choices(pairs: Sequence[PairedProbe]) -> Choice:
    """Choice flips and margin change over the probes scored on both sides.

    The p-value is Wilcoxon's signed-rank test, since a few options of very low probability would
    rule a t-test; the interval is Student's t. Identical log-probabilities give change 0,
    interval (0, 0) and p 1. Raises EvidenceError where only one side was scored.
    """
    scored = [both for paired in pairs if (both := _score_pair(paired)) is not None]
    n = len(scored)
    if n == 0:
        return Choice()
    lost = sum(old.right and not new.right for old, new in scored)
    gained = sum(new.right and not old.right for old, new in scored)
    changes = [new.margin - old.margin for old, new in scored]
    mean = fmean(changes)
    spread = stdev(changes) if n > 1 else 0.0
    half = float(stats.t.ppf(0.975, n - 1)) * spread / sqrt(n) if n > 1 else 0.0
    return Choice(
        n_scored=n,
        choice_before=sum(old.right for old, _ in scored) / n,
        choice_after=sum(new.right for _, new in scored) / n,
        choice_lost=lost,
        choice_gained=gained,
        choice_p=mcnemar_p(lost, gained),
        margin_change=mean,
        margin_ci=(mean - half, mean + half) if n > 1 else None,
        margin_p=_signed_rank_p(changes),
        margin_d=mean / spread if spread > _NO_SPREAD else None,
    )


def _signed_rank_p(changes: Sequence[float]) -> float:
    """P(W⁺ ≤ observed) of Wilcoxon's signed-rank statistic if every sign were a coin toss.

    Zeros are left out and ties get midranks (Wilcoxon, Biometrics Bulletin 1 (1945) 80–83). The
    distribution is summed up exactly, rank by rank, so it also holds for few or tied changes.
    """
    changed = [change for change in changes if change != 0]
    # Doubled, midranks are whole numbers and can index the table of probabilities.
    ranks = [round(2 * rank) for rank in stats.rankdata([abs(change) for change in changed])]
    observed = sum(rank for rank, change in zip(ranks, changed, strict=True) if change > 0)
    chances = np.zeros(sum(ranks) + 1)
    chances[0] = 1.0
    for rank in ranks:
        with_rank = np.zeros_like(chances)
        with_rank[rank:] = chances[:-rank]
        chances = (chances + with_rank) / 2
    return min(1.0, float(chances[: observed + 1].sum()))


def _score_pair(paired: PairedProbe) -> tuple[Scores, Scores] | None:
    old, new = paired.before.response, paired.after.response
    if len(old.option_logprobs) != len(new.option_logprobs):
        raise EvidenceError(
            f"Probe '{paired.probe.id}': {len(old.option_logprobs)} options were scored before and "
            f"{len(new.option_logprobs)} after; score both subjects on the same probe file."
        )
    before, after = score(old), score(new)
    return None if before is None or after is None else (before, after)


def _by_id(answers: Sequence[Answered], side: str) -> dict[str, Answered]:
    found: dict[str, Answered] = {}
    for answered in answers:
        if answered.probe.id in found:
            raise EvidenceError(
                f"Probe '{answered.probe.id}' is answered twice in the transcript {side}; the "
                "stored evidence is damaged, delete it and run again."
            )
        found[answered.probe.id] = answered
    return found


def _pair_one(before: Answered, after: Answered) -> PairedProbe:
    if before.probe != after.probe:
        raise EvidenceError(
            f"Probe '{before.probe.id}' was changed between the two transcripts; ask both subjects "
            "the same version of the probe file."
        )
    was, now = (one.grade.outcome is Outcome.RIGHT for one in (before, after))
    return PairedProbe(probe=before.probe, before=before, after=after, flip=_FLIPS[was, now])


def _phi(kept: int, lost: int, gained: int, still_wrong: int) -> float:
    n = kept + lost + gained + still_wrong
    margins = (kept + lost) * (gained + still_wrong) * (kept + gained) * (lost + still_wrong)
    if margins == 0:
        return 0.0
    determinant: float = kept * still_wrong - lost * gained
    if determinant > 0:
        determinant = max(determinant - n / 2, 0.0)
    return determinant / sqrt(margins)


def _square_and_add(one: float, other: float, phi: float) -> float:
    return sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))
