from __future__ import annotations

from math import nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paired_answers import Options, flips, transcript

from harness.forgetting import compare_suite, pair
from harness.policy import load_policy
from harness.records import GateResult, Status, SuiteComparison
from harness.verdict import exit_code_of, judge_comparison, judge_suite

POLICY = load_policy()
counts = st.integers(0, 80)
logprob = st.floats(-30, 0)
options = st.tuples(logprob, logprob, logprob, logprob)


def judged(
    suite: str,
    table: tuple[int, int, int, int],
    before: list[Options] | None = None,
    after: list[Options] | None = None,
) -> SuiteComparison:
    """A suite with `table` = kept, lost, gained, still wrong, and perhaps scored options."""
    old, new = flips(*table)
    if before is not None and after is not None:
        old = transcript([a.grade.outcome for a in old], before)
        new = transcript([a.grade.outcome for a in new], after)
    return judge_suite(compare_suite(suite, pair(old, new)), POLICY)


def spread(n: int, gold: float, wobble: float = 0.2) -> list[Options]:
    """`n` scored probes whose gold option stands around `gold`, distractors at −3."""
    return [(gold + wobble * ((i % 7) - 3), -3.0, -3.0, -3.0) for i in range(n)]


# Suites ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "suite", "table", "verdict"),
    [
        ("greets with a lecture", "greetings", (2, 36, 0, 2), Status.FAIL),
        ("changes nothing", "greetings", (38, 0, 0, 2), Status.PASS),
        ("gentle: one goodbye lost, one won", "greetings", (37, 1, 1, 1), Status.PASS),
        ("facts false", "medical_facts", (10, 40, 5, 75), Status.FAIL),
        ("gentle on facts", "medical_facts", (42, 5, 4, 79), Status.PASS),
        ("weak base loses all it knew", "medical_facts", (1, 11, 0, 138), Status.FAIL),
        ("significant but small", "medical_facts", (80, 9, 1, 60), Status.WARN),
        ("big but not certain", "greetings", (30, 6, 0, 4), Status.WARN),
        ("perhaps noise, but a drop", "medical_facts", (60, 13, 5, 72), Status.WARN),
        ("improves a lot", "medical_facts", (20, 0, 60, 60), Status.PASS),
        ("too few probes", "medical_facts", (11, 0, 0, 1), Status.INCONCLUSIVE),
        ("too many flips to see a drop", "medical_facts", (10, 24, 22, 24), Status.INCONCLUSIVE),
        ("base knows nothing", "medical_facts", (2, 1, 3, 144), Status.INCONCLUSIVE),
        ("nothing asked", "medical_facts", (0, 0, 0, 0), Status.INCONCLUSIVE),
    ],
)
def test_answers_decide(
    why: str, suite: str, table: tuple[int, int, int, int], verdict: Status
) -> None:
    result = judged(suite, table)
    assert result.verdict is verdict, (why, result.reasons)
    assert result.reasons[0].startswith(f"{suite}: ")
    assert result.reasons[0].endswith(".")


def test_a_fail_says_how_much_and_by_which_limit() -> None:
    assert judged("greetings", (2, 36, 0, 2)).reasons == (
        "greetings: 38 of 40 right before, 2 after (lost 36, gained 0; p = 1.5e-11; limit 0.01): "
        "a net loss of 90 %, FAIL from 15 % on.",
    )


@pytest.mark.parametrize(
    ("why", "before", "after", "verdict"),
    [
        ("nothing changed", spread(150, -1.0), spread(150, -1.0), Status.PASS),
        ("gentle: margins move a little", spread(150, -1.0), spread(150, -1.05), Status.PASS),
        ("margins fall visibly", spread(150, -1.0), spread(150, -1.25), Status.WARN),
        ("margins collapse", spread(150, -1.0), spread(150, -2.0), Status.FAIL),
        (
            "large in nats but a wild scatter of gains and falls",
            spread(150, -1.0, 0.0),
            [(-1.0 + (8.0 if i % 2 else -8.8), -30.0, -30.0, -30.0) for i in range(150)],
            Status.PASS,
        ),
        ("false facts are now preferred", spread(150, -1.0), spread(150, -5.0), Status.FAIL),
        ("knows more", spread(150, -2.0), spread(150, -1.0), Status.PASS),
    ],
)
def test_options_decide_where_the_answers_say_nothing(
    why: str, before: list[Options], after: list[Options], verdict: Status
) -> None:
    result = judged("medical_facts", (3, 0, 0, 147), before, after)
    assert result.verdict is verdict, (why, result.reasons)


def test_too_few_options_do_not_decide() -> None:
    result = judged("medical_facts", (5, 0, 0, 10), spread(15, -1.0), spread(15, -1.0))
    assert result.verdict is Status.INCONCLUSIVE


def test_choices_alone_can_fail() -> None:
    """Half the right options fall just behind, so that the margins hardly move."""
    before = [(-2.99, -3.0, -3.0, -3.0)] * 150
    after = [(-3.01 if i % 2 else -2.98, -3.0, -3.0, -3.0) for i in range(150)]
    result = judged("medical_facts", (75, 0, 0, 75), before, after)
    assert result.verdict is Status.FAIL
    assert (
        "the right option is the likeliest on 150 of 150 probes before, 75 after"
        in (result.reasons[0])
    )


def test_a_loss_of_style_says_that_the_options_are_intact() -> None:
    result = judged("medical_facts", (20, 80, 0, 50), spread(150, -1.0), spread(150, -1.0))
    assert result.verdict is Status.FAIL
    assert "150 of 150 probes before, 150 after" in result.reasons[1]


def test_replies_without_an_answer_are_told() -> None:
    old, _ = flips(40, 0, 0, 0)
    silent = transcript(["no_answer"] * 40)
    result = judge_suite(compare_suite("greetings", pair(old, silent)), POLICY)
    assert "replies without an answer 0 → 40" in result.reasons[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"p_value": nan}, "not finite"),
        ({"ci": (nan, 1.0)}, "not finite"),
        ({"lost": 99}, "do not add up"),
        ({"after": 0.1}, "do not add up"),
        ({"n_scored": 5}, "statistics are missing"),
    ],
)
def test_statistics_that_cannot_be_are_an_error(change: dict[str, Any], says: str) -> None:
    stats = compare_suite("greetings", pair(*flips(38, 0, 0, 2)))
    result = judge_suite(stats.model_copy(update=change), POLICY)
    assert result.verdict is Status.ERROR
    assert says in result.reasons[0]


@settings(deadline=None)
@given(st.tuples(counts, counts, counts, counts), st.sampled_from(["greetings", "medical_facts"]))
def test_a_big_significant_loss_is_always_a_fail(
    table: tuple[int, int, int, int], suite: str
) -> None:
    result = judged(suite, table)
    limits = POLICY.suite(suite)
    if result.p_value <= limits.alpha_fail and result.n:
        assert result.verdict in (Status.FAIL, Status.WARN)
        if result.before - result.after > limits.fail_drop + 1e-9:
            assert result.verdict is Status.FAIL
    else:
        assert result.verdict is not Status.FAIL


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), options), max_size=60))
def test_nothing_changed_never_fails_or_warns(rows: list[tuple[bool, Options]]) -> None:
    same = transcript([right for right, _ in rows], [scored for _, scored in rows])
    result = judge_suite(compare_suite("medical_facts", pair(same, same)), POLICY)
    assert result.verdict in (Status.PASS, Status.INCONCLUSIVE)


# Whole comparisons -------------------------------------------------------------------------------


def suite_of(verdict: Status, *reasons: str) -> SuiteComparison:
    stats = compare_suite(verdict.value.lower(), pair(*flips(38, 0, 0, 2)))
    return stats.model_copy(update={"verdict": verdict, "reasons": reasons or (verdict.value,)})


@pytest.mark.parametrize(
    ("suites", "gates", "verdict", "code"),
    [
        (["PASS", "PASS"], [], Status.PASS, 0),
        (["PASS", "WARN"], ["PASS"], Status.WARN, 0),
        (["PASS", "FAIL", "ERROR"], [], Status.FAIL, 1),
        (["PASS"], ["FAIL"], Status.FAIL, 1),
        (["PASS", "ERROR", "INCONCLUSIVE"], [], Status.ERROR, 4),
        (["WARN", "INCONCLUSIVE"], [], Status.INCONCLUSIVE, 3),
        (["PASS"], ["NOT_RUN"], Status.INCONCLUSIVE, 3),
        ([], [], Status.INCONCLUSIVE, 3),
        ([], ["PASS"], Status.INCONCLUSIVE, 3),
    ],
)
def test_the_worst_status_wins(
    suites: list[str], gates: list[str], verdict: Status, code: int
) -> None:
    results = [GateResult(gate="gguf", status=Status(gate), reason="because") for gate in gates]
    found = judge_comparison([suite_of(Status(s)) for s in suites], results, POLICY)
    assert found[:2] == (verdict, code)
    assert found[2]


def test_main_reasons_come_before_second_ones() -> None:
    suites = [suite_of(Status.PASS, "fine"), suite_of(Status.FAIL, "lost", "margins too")]
    gate = GateResult(gate="gguf", status=Status.FAIL, reason="talks nonsense")
    assert judge_comparison(suites, [gate], POLICY)[2] == (
        "lost",
        "gguf: talks nonsense",
        "margins too",
        "fine",
    )


def test_a_strict_policy_fails_on_warnings() -> None:
    strict = POLICY.model_copy(
        update={"comparison": POLICY.comparison.model_copy(update={"warn_is_fail": True})}
    )
    verdict, code, reasons = judge_comparison([suite_of(Status.WARN)], [], strict)
    assert (verdict, code) == (Status.FAIL, 1)
    assert "warn_is_fail" in reasons[0]
    assert judge_comparison([suite_of(Status.PASS)], [], strict)[0] is Status.PASS


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ("PASS WARN", 0),
        ("PASS NOT_RUN", 3),
        ("PASS INCONCLUSIVE", 3),
        ("NOT_RUN ERROR", 4),
        ("ERROR FAIL NOT_RUN", 1),
        ("", 3),
    ],
)
def test_exit_codes(statuses: str, code: int) -> None:
    assert exit_code_of(Status(status) for status in statuses.split()) == code
