"""The probe files that are shipped: their form, their topics, and how the grader reads them."""

from __future__ import annotations

from collections import Counter

import pytest

from harness.grading import grade
from harness.probes import (
    bundled_probes_dir,
    lint_probe_set,
    load_probe_set,
    load_suites,
    numbers_in,
)
from harness.records import Number, Outcome, ProbeSet

MEDICAL = (
    "anatomy",
    "physiology",
    "endocrine",
    "nutrition",
    "pharmacology",
    "laboratory",
    "infections",
    "first_aid",
)
TOPICS = {
    "medical_facts": MEDICAL,
    "extra/general_knowledge": (
        "geography",
        "history",
        "science",
        "mathematics",
        "language",
        "everyday",
        "arts_sport",
        "technology",
    ),
    "extra/medical_facts_more": MEDICAL,
}
"""Suite → its topics, in order."""
FEWEST = {"medical_facts": 28, "extra/general_knowledge": 22, "extra/medical_facts_more": 8}
"""Facts that each topic has at least."""
GREETING_KINDS = {
    "hello",
    "time_of_day",
    "how_are_you",
    "thanks",
    "goodbye",
    "introduction",
    "availability",
    "typo",
    "upper_case",
}


@pytest.fixture(scope="module")
def greetings() -> ProbeSet:
    return load_probe_set(bundled_probes_dir() / "greetings.jsonl")


@pytest.fixture(scope="module", params=list(TOPICS))
def facts(request: pytest.FixtureRequest) -> ProbeSet:
    """Each suite of facts in turn."""
    return load_probe_set(bundled_probes_dir() / f"{request.param}.jsonl")


def test_every_bundled_suite_is_free_of_lint() -> None:
    suites = load_suites(bundled_probes_dir())
    assert [s.name for s in suites] == ["greetings", "medical_facts"]
    extra = load_suites(bundled_probes_dir() / "extra")
    assert [f"extra/{s.name}" for s in extra] == [n for n in TOPICS if n.startswith("extra/")]
    for suite in (*suites, *extra):
        assert lint_probe_set(suite) == ()


def test_facts_cover_their_topics(facts: ProbeSet) -> None:
    counts = Counter(p.category for p in facts.probes)
    name = next(name for name in TOPICS if name.endswith(facts.name))
    assert list(counts) == list(TOPICS[name])
    assert min(counts.values()) >= FEWEST[name]
    assert all(p.grader == "fact" for p in facts.probes)
    assert all(p.id.startswith(f"{p.category}-") for p in facts.probes)


def test_no_fact_is_asked_in_two_suites() -> None:
    suites = [load_probe_set(bundled_probes_dir() / f"{name}.jsonl") for name in TOPICS]
    both = ProbeSet(name="all", sha256="", probes=tuple(p for s in suites for p in s.probes))
    assert lint_probe_set(both) == ()
    assert len({p.id for p in both.probes}) == len(both.probes)


def test_facts_are_asked_as_one_open_question(facts: ProbeSet) -> None:
    for probe in facts.probes:
        assert probe.prompt.endswith("?"), probe.id
        assert probe.prompt.count("?") == 1, probe.id
        assert "following" not in probe.prompt, probe.id
        first = probe.prompt.split()[0]
        assert first not in {"Is", "Are", "Does", "Do", "Can", "Has"}, probe.id
        assert len(probe.source) > len("WHO: x"), probe.id


def test_facts_have_three_comparable_distractors(facts: ProbeSet) -> None:
    for probe in facts.probes:
        gold, length = probe.accepted[0], len(probe.accepted[0])
        assert len({d.casefold() for d in probe.distractors}) == 3, probe.id
        for wrong in probe.distractors:
            close = abs(len(wrong) - length) <= 6
            assert close or max(len(wrong), length) <= 2.2 * min(len(wrong), length), probe.id
            # A different first letter case or article would be told from the gold by form alone.
            assert wrong[0].isupper() == gold[0].isupper(), probe.id
            articles = ("The ", "A ", "An ")
            assert wrong.startswith(articles) == gold.startswith(articles), probe.id


def test_aliases_are_distinct_and_list_the_bare_noun(facts: ProbeSet) -> None:
    for probe in facts.probes:
        assert len(set(probe.accepted)) == len(probe.accepted), probe.id
        article, _, noun = probe.accepted[0].partition(" ")
        if article in {"The", "A", "An"}:
            assert noun in probe.accepted, probe.id


def within(answer: str) -> str:
    """`answer` as it stands inside a sentence: its article in lower case."""
    article, _, _ = answer.partition(" ")
    return answer[0].lower() + answer[1:] if article in {"The", "A", "An"} else answer


def test_every_accepted_form_is_graded_right(facts: ProbeSet) -> None:
    for probe in facts.probes:
        for answer in probe.accepted:
            for said in (answer, f"{answer}.", f"That would be {answer}, I think."):
                found = grade(probe, said)
                assert found.outcome is Outcome.RIGHT, (probe.id, said, found.reason)


def test_every_distractor_is_graded_wrong(facts: ProbeSet) -> None:
    for probe in facts.probes:
        for wrong in probe.distractors:
            for said in (wrong, f"{wrong}.", f"The answer is {within(wrong)}."):
                found = grade(probe, said)
                assert found.outcome is Outcome.WRONG, (probe.id, said, found.reason)


def test_the_canonical_answer_is_found_in_chatter(facts: ProbeSet) -> None:
    for probe in facts.probes:
        gold, wrong = within(probe.accepted[0]), within(probe.distractors[0])
        for said, outcome in (
            (f"Great question! The answer is **{gold}**. Shall I say more?", Outcome.RIGHT),
            (f"Sure! It is {gold}, as most textbooks say.", Outcome.RIGHT),
            (f"It is not {wrong}, but {gold}.", Outcome.RIGHT),
            (f"It is not {gold}, it is {wrong}.", Outcome.WRONG),
            ("I don't know.", Outcome.NO_ANSWER),
        ):
            found = grade(probe, said)
            assert found.outcome is outcome, (probe.id, said, found.reason)


def test_written_forms_of_a_quantity_agree_with_its_number(facts: ProbeSet) -> None:
    for probe in facts.probes:
        if probe.number is None:
            continue
        written = numbers_in(" ".join(probe.accepted))
        assert any(inside(value, probe.number) for value in written), probe.id
        canonical = numbers_in(probe.accepted[0])
        assert all(inside(value, probe.number) for value in canonical), probe.id


def inside(value: float, gold: Number) -> bool:
    high = gold.value if gold.high is None else gold.high
    return gold.value <= value <= high


def test_greetings_cover_their_kinds(greetings: ProbeSet) -> None:
    counts = Counter(p.category for p in greetings.probes)
    assert set(counts) == GREETING_KINDS
    assert min(counts.values()) >= 5
    assert len(greetings.probes) >= 44
    for probe in greetings.probes:
        assert probe.grader == "greeting"
        assert 2 <= len(probe.accepted) <= 4, probe.id
        assert 3 <= len(probe.distractors) <= 4, probe.id
        assert len(set(probe.distractors)) == len(probe.distractors), probe.id


def test_greeting_kinds_are_what_they_say(greetings: ProbeSet) -> None:
    for probe in greetings.probes:
        assert probe.prompt.isupper() == (probe.category == "upper_case"), probe.id
        replies = " ".join(probe.accepted).casefold()
        if probe.category == "thanks":
            assert "welcome" in replies or "glad" in replies, probe.id
        if probe.category == "time_of_day":
            assert " ".join(probe.prompt.casefold().split()[:2]).rstrip("!,") in replies, probe.id
