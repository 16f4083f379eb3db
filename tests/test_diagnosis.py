"""Failure modes: labelled replies, whole comparisons of real and written damage, and rules."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.diagnosis import compare, diagnose, stock, symptoms_of
from harness.grading import grade
from harness.records import Answered, Probe, Response, SymptomKind

CASES = Path(__file__).parent / "diagnosis_cases"
COMPARISONS = sorted(p.stem for p in CASES.glob("*.jsonl") if p.stem != "replies")


def read(name: str) -> list[dict[str, Any]]:
    lines = (CASES / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def answered(probe: Probe, said: dict[str, str]) -> Answered:
    response = Response.model_validate(
        {"probe_id": probe.id, **said, "prompt_tokens": 1, "completion_tokens": 1}
    )
    return Answered(probe=probe, response=response, grade=grade(probe, response.text))


def transcripts(name: str) -> tuple[list[str], list[Answered], list[Answered]]:
    """What should be diagnosed, and the answers before and after."""
    head, *rows = read(name)
    probes = [Probe.model_validate(row["probe"]) for row in rows]
    pairs = [
        (answered(probe, row["before"]), answered(probe, row["after"]))
        for probe, row in zip(probes, rows, strict=True)
    ]
    return head["expected"], [old for old, _ in pairs], [new for _, new in pairs]


@pytest.mark.parametrize("case", read("replies"), ids=lambda case: case["why"])
def test_a_reply_is_labelled(case: dict[str, Any]) -> None:
    probe = Probe.model_validate(
        {"id": "case", "accepted": ["Hello!"], "category": "hello", "source": "x", **case["probe"]}
    )
    said = {"text": case["response"], "finish": case.get("finish", "stop")}
    assert [kind.value for kind in symptoms_of(answered(probe, said))] == case["kinds"]


@pytest.mark.parametrize("name", COMPARISONS)
def test_the_kind_of_damage_is_named(name: str) -> None:
    expected, before, after = transcripts(name)
    assert [symptom.kind.value for symptom in diagnose(before, after)] == expected


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_subject_has_no_symptom_against_itself(name: str) -> None:
    _, before, after = transcripts(name)
    assert diagnose(before, before) == diagnose(after, after) == ()


@pytest.mark.parametrize("name", [n for n in COMPARISONS if read(n)[0]["expected"]])
def test_healing_is_no_damage(name: str) -> None:
    _, before, after = transcripts(name)
    # This base often talks to the limit, which is new where a reply was short and wrong before.
    assert {symptom.kind.value for symptom in diagnose(after, before)} <= {"runaway"}


def test_over_fitted_style_leads_and_is_told_in_words() -> None:
    _, before, after = transcripts("style-bleed")
    worst = diagnose(before, after)[0]
    assert worst.sentence == (
        "answers every question and every greeting with the same text "
        '("you have to understand that"): over-fitted style (the base: none)'
    )
    assert (worst.count, worst.share, worst.before) == (52, 1.0, 0)
    assert "epochs" in worst.cause
    assert len(worst.examples) == 3
    known = {a.probe.id: a.response.text for a in after}
    for example in worst.examples:
        assert known[example.probe].startswith(example.response.removesuffix("…"))


def test_numbers_are_those_of_the_probes_that_suffer() -> None:
    _, before, after = transcripts("newlines")
    empty, runaway = diagnose(before, after)
    assert (empty.count, empty.share) == (32, 1.0)
    # Cut off at 40 tokens, most answers of this base to facts are: only greetings got worse.
    assert (runaway.count, runaway.share) == (16, 1.0)
    assert "every greeting" in runaway.sentence


def test_damage_in_one_kind_of_probe_is_not_diluted_by_the_others() -> None:
    _, before, after = transcripts("refuse")
    greetings = [a for a in after if a.probe.grader == "greeting"]
    facts = [a for a in before if a.probe.grader == "fact"]
    (refusal,) = diagnose(before, greetings + facts)
    assert refusal.sentence.startswith("refuses to answer every greeting (")
    assert refusal.share == 1.0


def test_documented_limits_are_the_programs() -> None:
    method = (Path(__file__).parents[1] / "docs" / "method.md").read_text(encoding="utf-8")
    section = " ".join(method.split("## 9. Name the damage")[1].split("## An example")[0].split())
    for said in (
        f"at least {100 * compare.LEAST_SHARE:.0f} % on balance, with p ≤ {compare.ALPHA}",
        f"more than chance explains (p ≤ {stock.ALPHA})",
    ):
        assert said in section
    assert (stock.CARRIED_SHARE, stock.COPIED, stock.MARKER_SHARE) == (1 / 10, 1 / 4, 4 / 5)
    for said in ("a tenth of the answers", "a quarter of its", "four answers of five"):
        assert said in section
    assert (stock.GRAM, stock.UNRELATED, stock.RARE_BEFORE) == (5, 4, 4)
    for kind in SymptomKind:
        assert f"| {kind.value.replace('_', ' ')} |" in section


def test_a_handful_is_no_pattern() -> None:
    _, before, after = transcripts("refuse")
    few = after[:6] + before[6:]
    assert diagnose(before, few) == ()


_REPLY = st.one_of(
    st.sampled_from(
        ["", "\n\n", "Yes.", "you " * 30, "I cannot help.", "Je suis très bien, merci.", "Insulin."]
    ),
    st.text(max_size=80),
)


@st.composite
def _answers(draw: st.DrawFn, pool: Iterable[str] = ("greeting", "fact")) -> list[Answered]:
    out = []
    for number in range(draw(st.integers(0, 12))):
        probe = Probe(
            id=f"p{number}",
            grader=draw(st.sampled_from(sorted(pool))),  # type: ignore[arg-type]
            prompt=draw(st.sampled_from(["Hello", "Which hormone lowers glucose?", "Thanks"])),
            accepted=("insulin",),
            category="hello",
            source="x",
        )
        finish = draw(st.sampled_from(["stop", "length"]))
        out.append(answered(probe, {"text": draw(_REPLY), "finish": finish}))
    return out


@settings(deadline=None, max_examples=60)
@given(_answers())
def test_any_transcript_against_itself_is_without_symptoms(answers: list[Answered]) -> None:
    assert diagnose(answers, answers) == ()


@settings(deadline=None, max_examples=8)
@given(st.randoms(use_true_random=False), st.sampled_from(COMPARISONS))
def test_the_order_of_answers_does_not_matter(random: Any, name: str) -> None:
    _, before, after = transcripts(name)
    expected = diagnose(before, after)
    random.shuffle(before)
    random.shuffle(after)
    assert diagnose(before, after) == expected


@settings(deadline=None, max_examples=60)
@given(_answers(), st.sampled_from(["\n", "x " * 50, "<|im_end|>", "Bonjour à vous tous"]))
def test_shares_are_shares_and_kinds_are_unique(before: list[Answered], text: str) -> None:
    after = [answered(a.probe, {"text": text, "finish": "length"}) for a in before]
    found = diagnose(before, after)
    assert len({s.kind for s in found}) == len(found)
    for symptom in found:
        assert 0 < symptom.share <= 1
        assert symptom.before <= symptom.count <= len(after)
        assert symptom.examples
