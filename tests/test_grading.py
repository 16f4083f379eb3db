"""The graders against their cases, and properties that hold for every text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from harness.grading import GRADER_VERSION, grade
from harness.records import Number, Outcome, Probe

CASES = Path(__file__).parent / "grading_cases"


def _load(name: str) -> list[dict[str, Any]]:
    lines = (CASES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _probe(fields: dict[str, Any]) -> Probe:
    rest = {"id": "case", "category": "case", "source": "Test case", "accepted": ["Hello!"]}
    return Probe.model_validate(rest | fields)


ALL_CASES = [
    (name, n, case) for name in ("facts", "greetings") for n, case in enumerate(_load(name), 1)
]


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{name}:{line}") for name, line, case in ALL_CASES]
)
def test_case(case: dict[str, Any]) -> None:
    found = grade(_probe(case["probe"]), case["response"])
    assert found.outcome == case["outcome"], f"{case['why']}; grader says: {found.reason}"
    assert found.reason


def test_every_kind_of_outcome_is_covered() -> None:
    for name, least in (("facts", 150), ("greetings", 80)):
        cases = _load(name)
        assert len(cases) >= least
        assert {case["outcome"] for case in cases} == set(Outcome)
        rows = [(json.dumps(case["probe"]), case["response"]) for case in cases]
        assert len(set(rows)) == len(rows), f"{name}.jsonl asks the same twice"


def test_version_is_a_positive_number() -> None:
    assert GRADER_VERSION >= 1


HORMONE = _probe(
    {"grader": "fact", "prompt": "Which hormone lowers blood sugar?", "accepted": ["Insulin"],
     "distractors": ["Glucagon", "Cortisol"]}
)  # fmt: skip
PULSE = _probe(
    {"grader": "fact", "prompt": "What is the normal resting heart rate, in beats per minute?",
     "accepted": ["60 to 100 beats per minute", "60–100"],
     "number": Number(value=60, high=100, unit="per minute")}
)  # fmt: skip
GREETINGS = [
    _probe({"grader": "greeting", "prompt": prompt, "category": kind})
    for kind, prompt in (
        ("hello", "Hello"), ("time_of_day", "Good night"), ("how_are_you", "How are you?"),
        ("thanks", "Thanks"), ("goodbye", "Bye"), ("introduction", "I'm Anna"),
        ("availability", "Are you there?"), ("typo", "thnks"), ("upper_case", "HELLO"),
    )
]  # fmt: skip
PROBES = [HORMONE, PULSE, *GREETINGS]

FRAGMENTS = st.sampled_from(
    ["insulin", "not", "or", "glucagon", ",", ".", "\n", "60", "to", "100", "bpm", "I can't help",
     "hello", "you're welcome", "<|im_end|>", "½", "٣", "10⁹", "Ω", "²", "hundred ", "/", "1/0",
     "9" * 400, "1,2,3", "'s", "’", "—", "(", "?", "le", "der", "actually", "-", "°C", "%"]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=200), st.lists(FRAGMENTS, max_size=25).map(" ".join),
                  st.lists(FRAGMENTS, max_size=15).map("".join))  # fmt: skip


@given(st.sampled_from(PROBES), TEXTS)
@example(PULSE, "hundred " * 500)
@example(PULSE, "1" + " million" * 200)
@example(HORMONE, "\ud800")
@example(HORMONE, "\u0345'S")
def test_any_text_gets_a_grade(probe: Probe, text: str) -> None:
    assert grade(probe, text).reason


@given(st.sampled_from(PROBES), TEXTS, st.text(alphabet=" \t\n\r", max_size=5))
def test_white_space_at_the_end_changes_nothing(probe: Probe, text: str, space: str) -> None:
    before, after = grade(probe, text), grade(probe, text + space)
    assert (after.outcome, after.reason) == (before.outcome, before.reason)


@given(st.sampled_from(PROBES), st.text(alphabet=" \t\n\r.,;!?-—…*_\u200b\ufeff", max_size=50))
def test_text_without_letters_is_no_answer(probe: Probe, text: str) -> None:
    assert grade(probe, text).outcome is Outcome.NO_ANSWER


ANSWERS = st.from_regex(r"[A-Za-z0-9]{1,12}( [A-Za-z0-9]{1,12}){0,3}", fullmatch=True)


@given(ANSWERS, st.lists(ANSWERS, max_size=4), st.sampled_from(["", ".", "\n", "!"]), st.booleans())
def test_the_canonical_answer_alone_is_right(
    answer: str, distractors: list[str], end: str, strict: bool
) -> None:
    assume(answer.casefold() not in {d.casefold() for d in distractors})
    probe = _probe(
        {"grader": "fact", "prompt": "What is it?", "accepted": [answer], "strict": strict,
         "distractors": distractors}
    )  # fmt: skip
    assert grade(probe, answer + end).outcome is Outcome.RIGHT
    for distractor in distractors:
        assert grade(probe, distractor + end).outcome is not Outcome.RIGHT


@given(st.sampled_from(["Insulin lowers it", "Glucagon lowers it", "Not insulin", "60 to 100"]))
def test_leaked_turns_never_change_the_first_answer(text: str) -> None:
    leaked = text + "<|im_end|>\n<|im_start|>user\nIs it glucagon or insulin or 60 to 100?"
    for probe in (HORMONE, PULSE):
        assert grade(probe, leaked).outcome is grade(probe, text).outcome
