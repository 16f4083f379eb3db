from __future__ import annotations

import random
from math import inf, isfinite, nan, sqrt

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from paired_answers import answered, flips, transcript
from scipy.stats import wilcoxon

from harness.errors import EvidenceError
from harness.forgetting import (
    compare_suite,
    mcnemar_p,
    minimum_detectable_drop,
    newcombe_ci,
    pair,
    score,
    wilson_ci,
)
from harness.records import Flip, Outcome, SuiteComparison

counts = st.integers(0, 60)
tables = st.tuples(counts, counts, counts, counts)
logprob = st.floats(-40, 0)
options = st.tuples(logprob, logprob, logprob, logprob)


def compared(kept: int, lost: int, gained: int, still_wrong: int) -> SuiteComparison:
    return compare_suite("facts", pair(*flips(kept, lost, gained, still_wrong)))


# Published examples ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "gained", "two_sided"),
    [
        # Two culture media for tubercle bacilli: Armitage & Berry, Statistical Methods in Medical
        # Research, 3rd ed. 1994, p. 127; exact p after Liddell 1983.
        (12, 2, 0.0129),
        # Airway hyper-responsiveness (Bentur 2009) and complete response (Cavo 2012), as in
        # Fagerland, Lydersen & Laake, BMC Med. Res. Methodol. 13 (2013) 91, table 5.
        (7, 1, 0.0703),
        (16, 6, 0.0525),
    ],
)
def test_mcnemar_agrees_with_published_examples(lost: int, gained: int, two_sided: float) -> None:
    assert 2 * mcnemar_p(lost, gained) == pytest.approx(two_sided, abs=5e-5)


@pytest.mark.parametrize(
    ("table", "interval"),
    [
        # Fagerland, Lydersen & Laake, Statistical Analysis of Contingency Tables (2017), ch. 8,
        # "Newcombe square-and-add": Cavo 2012, (59, 6; 16, 80), and Bentur 2009, (1, 1; 7, 12).
        ((59, 16, 6, 80), (-0.1186, -0.0046)),
        ((1, 7, 1, 12), (-0.5069, -0.0256)),
        # Armitage & Berry 1994, p. 127, (20, 12; 2, 16), after Newcombe 1998.
        ((20, 2, 12, 16), (0.0562, 0.3292)),
    ],
)
def test_newcombe_agrees_with_published_examples(
    table: tuple[int, int, int, int], interval: tuple[float, float]
) -> None:
    assert newcombe_ci(*table) == pytest.approx(interval, abs=5e-5)


def test_wilson_agrees_with_newcombes_example() -> None:
    # 81 of 263: Newcombe, Statistics in Medicine 17 (1998) 857–872, table I, method 3.
    assert wilson_ci(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(
    ("n", "discordant", "drop"), [(30, 6, 0.2286), (100, 20, 0.1252), (40, 0, 0.075), (2, 0, 1.0)]
)
def test_minimum_detectable_drop(n: int, discordant: int, drop: float) -> None:
    assert minimum_detectable_drop(n, discordant) == pytest.approx(drop, abs=5e-5)


def test_a_drop_of_the_detectable_size_is_detected_four_times_in_five() -> None:
    """The promise of `mde`, played through: 150 probes, a tenth of them discordant."""
    chance, n, psi = random.Random(1), 150, 0.10
    drop = 2.8 * sqrt(psi / n)
    found = 0
    for _ in range(2000):
        draws = [chance.random() for _ in range(n)]
        lost = sum(draw < (psi + drop) / 2 for draw in draws)
        gained = sum((psi + drop) / 2 <= draw < psi for draw in draws)
        found += mcnemar_p(lost, gained) <= 0.025
    assert 0.72 <= found / 2000 <= 0.92


# Properties --------------------------------------------------------------------------------------


@given(tables)
def test_swapping_before_and_after_mirrors_everything(table: tuple[int, int, int, int]) -> None:
    kept, lost, gained, still_wrong = table
    there, back = compared(*table), compared(kept, gained, lost, still_wrong)
    assert (there.lost, there.gained) == (back.gained, back.lost)
    assert (there.before, there.after) == (back.after, back.before)
    assert there.mde == back.mde
    assert there.ci == pytest.approx((-back.ci[1], -back.ci[0]))


@given(tables)
def test_everything_stays_in_range(table: tuple[int, int, int, int]) -> None:
    stats = compared(*table)
    assert -1 <= stats.ci[0] <= stats.after - stats.before + 1e-12
    assert stats.after - stats.before - 1e-12 <= stats.ci[1] <= 1
    assert 0 < stats.p_value <= 1
    assert 0 < stats.mde <= 1
    assert stats.n == sum(table)


@given(counts, counts)
def test_p_falls_with_every_further_loss(lost: int, gained: int) -> None:
    assert mcnemar_p(lost + 1, gained) <= mcnemar_p(lost, gained)
    assert mcnemar_p(lost, gained + 1) >= mcnemar_p(lost, gained)


@given(st.lists(st.tuples(st.booleans(), options), min_size=1, max_size=30))
def test_nothing_changed_means_no_difference(rows: list[tuple[bool, tuple[float, ...]]]) -> None:
    same = transcript([right for right, _ in rows], [scored for _, scored in rows])
    stats = compare_suite("facts", pair(same, same))
    assert stats.after == stats.before
    assert (stats.lost, stats.gained, stats.p_value) == (0, 0, 1.0)
    assert (stats.margin_change, stats.margin_p, stats.choice_p) == (0.0, 1.0, 1.0)
    assert stats.margin_ci == ((0.0, 0.0) if len(rows) > 1 else None)
    assert stats.margin_d is None
    assert stats.n_scored == len(rows)


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), options, options), max_size=30),
    st.randoms(use_true_random=False),
)
def test_order_does_not_matter_and_no_number_is_nan(
    rows: list[tuple[bool, bool, tuple[float, ...], tuple[float, ...]]], chance: random.Random
) -> None:
    before = transcript([row[0] for row in rows], [row[2] for row in rows])
    after = transcript([row[1] for row in rows], [row[3] for row in rows])
    pairs = list(pair(before, after))
    stats = compare_suite("facts", pairs)
    chance.shuffle(pairs)
    assert compare_suite("facts", pairs) == stats
    numbers = [value for value in stats.model_dump().values() if isinstance(value, float)]
    assert all(isfinite(number) for number in numbers)
    if stats.margin_ci is not None and stats.margin_change is not None:
        assert stats.margin_ci[0] <= stats.margin_change <= stats.margin_ci[1]


# Pairing -----------------------------------------------------------------------------------------


def test_pairs_by_id_in_the_order_of_before() -> None:
    before, after = flips(1, 1, 1, 1)
    pairs = pair(before, tuple(reversed(after)))
    assert [paired.probe.id for paired in pairs] == ["q0000", "q0001", "q0002", "q0003"]
    assert [paired.flip for paired in pairs] == [
        Flip.KEPT,
        Flip.LOST,
        Flip.GAINED,
        Flip.STILL_WRONG,
    ]


def test_no_answer_counts_as_not_right() -> None:
    before, after = transcript([True, Outcome.WRONG]), transcript([Outcome.NO_ANSWER] * 2)
    stats = compare_suite("facts", pair(before, after))
    assert (stats.lost, stats.no_answer_before, stats.no_answer_after) == (1, 0, 2)


def test_transcripts_that_do_not_match_are_refused() -> None:
    one, two = transcript([True]), transcript([True, True])
    with pytest.raises(EvidenceError, match="'q0001' is missing after"):
        pair(two, one)
    with pytest.raises(EvidenceError, match="'q0001' is missing before"):
        pair(one, two)
    with pytest.raises(EvidenceError, match="answered twice in the transcript before"):
        pair(one * 2, one)
    other = one[0].model_copy(
        update={"probe": one[0].probe.model_copy(update={"prompt": "another question"})}
    )
    with pytest.raises(EvidenceError, match="'q0000' was changed"):
        pair(one, [other])


# Options -----------------------------------------------------------------------------------------


def test_scores_are_per_token() -> None:
    scores = score(answered(0, True, (-2.0, -3.0, -1.0), (4, 1, 1)).response)
    assert scores is not None
    assert scores.right
    assert scores.margin == pytest.approx(-0.5 - (-3.0 - 1.0) / 2)


def test_a_tie_is_not_right() -> None:
    scores = score(answered(0, True, (-1.0, -1.0)).response)
    assert scores is not None
    assert not scores.right


@pytest.mark.parametrize("logprobs", [(), (-1.0,)])
def test_fewer_than_two_options_are_not_scored(logprobs: tuple[float, ...]) -> None:
    assert score(answered(0, True, logprobs).response) is None


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_logprobs_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(EvidenceError, match="'q0000': an option's log-probability is not a finite"):
        score(answered(0, True, (-1.0, value)).response)


@pytest.mark.parametrize("tokens", [(1,), (1, 0)])
def test_damaged_token_counts_are_refused(tokens: tuple[int, ...]) -> None:
    with pytest.raises(EvidenceError, match="damaged"):
        score(answered(0, True, (-1.0, -2.0), tokens).response)


def test_options_scored_on_one_side_only_are_refused() -> None:
    with pytest.raises(EvidenceError, match="2 options were scored before and 0 after"):
        compare_suite("facts", pair(transcript([True], [(-1.0, -2.0)]), transcript([True])))


def test_margin_of_a_known_case() -> None:
    """Differences −1, −2, −3, −4: mean −2.5, sd 1.291, t(3) = 3.182, and W = 0 of 4 pairs."""
    before = transcript([True] * 4, [(-1.0, -5.0)] * 4)
    after = transcript([True] * 4, [(-1.0 - k, -5.0) for k in (1, 2, 3, 4)])
    stats = compare_suite("facts", pair(before, after))
    assert stats.margin_change == pytest.approx(-2.5)
    assert stats.margin_d == pytest.approx(-2.5 / 1.29099, rel=1e-4)
    assert stats.margin_ci == pytest.approx((-2.5 - 2.0543, -2.5 + 2.0543), abs=1e-3)
    assert stats.margin_p == pytest.approx(1 / 16)
    assert (stats.choice_before, stats.choice_after) == (1.0, 0.75)
    assert (stats.choice_lost, stats.choice_gained) == (1, 0)


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=25, unique_by=abs))
def test_margin_p_agrees_with_scipy_where_scipy_is_exact(changes: list[int]) -> None:
    changes = [change for change in changes if change]
    assume(changes)
    before = transcript([True] * len(changes), [(-2000.0, -1.0)] * len(changes))
    after = transcript([True] * len(changes), [(change - 2000.0, -1.0) for change in changes])
    expected = wilcoxon(changes, alternative="less", method="exact").pvalue
    assert compare_suite("facts", pair(before, after)).margin_p == pytest.approx(expected)


def test_one_outlier_does_not_make_a_margin_fall() -> None:
    before = transcript([True] * 20, [(-1.0, -2.0)] * 20)
    after = transcript([True] * 20, [(-39.0, -2.0), *[(-0.9 - k / 1000, -2.0) for k in range(19)]])
    stats = compare_suite("facts", pair(before, after))
    assert stats.margin_change is not None and stats.margin_change < -1
    assert stats.margin_p is not None and stats.margin_p > 0.9


def test_the_same_fall_everywhere_has_no_spread_but_a_p_value() -> None:
    before = transcript([True] * 12, [(-1.0, -2.0)] * 12)
    after = transcript([True] * 12, [(-1.5, -2.0)] * 12)
    stats = compare_suite("facts", pair(before, after))
    assert stats.margin_d is None
    assert stats.margin_ci == (-0.5, -0.5)
    assert stats.margin_p is not None and stats.margin_p < 0.001
