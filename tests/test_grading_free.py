"""Grading free rows (question, gold, answer): cases, properties, and the parts it is made of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.grading import grade_answer
from harness.grading.coverage import find_covered, phrases, related
from harness.grading.dates import Agreement, Date, agreement, as_date
from harness.grading.forms import alternatives, asked_by, derived
from harness.grading.free import infer_number
from harness.grading.numbers import words_of
from harness.grading.people import find_alone, name_forms, nicknames, short_names
from harness.grading.repair import repair
from harness.records import Outcome

ROOT = Path(__file__).parent.parent


def _load() -> list[dict[str, Any]]:
    lines = (ROOT / "tests/grading_cases/free.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


CASES = _load()


@pytest.mark.parametrize("case", [pytest.param(c, id=f"free:{n}") for n, c in enumerate(CASES, 1)])
def test_case(case: dict[str, Any]) -> None:
    found = grade_answer(case["question"], case["gold"], case["answer"])
    assert found.outcome == case["outcome"], f"{case['why']}; grader says: {found.reason}"
    assert found.reason


def test_cases_tempt_both_ways() -> None:
    outcomes = Counter(case["outcome"] for case in CASES)
    assert outcomes["right"] >= 90 and outcomes["wrong"] >= 80 and outcomes["no_answer"] >= 5
    rows = Counter((c["question"], str(c["gold"]), c["answer"]) for c in CASES)
    assert max(rows.values()) == 1


@pytest.mark.parametrize("gold", ["", " ", [], ["", " "], "/"])
def test_a_row_without_gold_is_refused(gold: str | list[str]) -> None:
    with pytest.raises(UsageError, match="no gold answer"):
        grade_answer("What is it?", gold, "Something.")


GOLDS = st.sampled_from(
    ["Paris", "John Quincy Adams", "12 August 2012", "the 1930s", "42.195 km", "four", "A+",
     "(the) end", "a/b", "AC/DC", "6ft 3in", "78%", "Mr. Trex", "in the winter", "$5 million",
     "red, white and blue", "week 6 of training", "Anna Berg and Paul Stein", "yes", "I S/I.s."]
)  # fmt: skip
QUESTIONS = st.sampled_from(
    ["", "?", "Who was it?", "How many are there?", "When was it in 2018?", "Which state is it?",
     "Name the three colours.", "How long is it in miles?"]
)  # fmt: skip
FRAGMENTS = st.sampled_from(
    ["Paris", "byPaul", "19832.", "February 9", "the 1930s", "31/12/1999", "[2]", "not", "or",
     "and", "(", ".", "26.2 miles", "four", "A+", "Mr.", "Adams", "many people think", "½",
     "if you mean", "٣", "10⁹", "9" * 400, "'s", "—", "\n", "No", "Ω"]
)  # fmt: skip
ANSWERS = st.one_of(st.text(max_size=200), st.lists(FRAGMENTS, max_size=20).map(" ".join),
                    st.lists(FRAGMENTS, max_size=12).map("".join))  # fmt: skip


@given(QUESTIONS, st.one_of(GOLDS, st.text(max_size=40)), ANSWERS)
@example("When?", "1/1/1", "1/1/1")
@example("Who?", "\u0345'S", "\ud800")
def test_any_row_gets_a_grade(question: str, gold: str, answer: str) -> None:
    assume(any(c.isalnum() for c in gold) and "(" not in gold)
    assert grade_answer(question, gold, answer).reason


@given(GOLDS)
def test_the_gold_itself_is_right(gold: str) -> None:
    for written in alternatives(gold):
        assert grade_answer("What is it?", gold, written).outcome is Outcome.RIGHT


@given(st.lists(st.sampled_from(["Oslo", "Bern", "Rome", "Kyiv"]), min_size=1, unique=True))
def test_one_of_several_golds_will_do(golds: list[str]) -> None:
    for gold in golds:
        assert grade_answer("Name a capital.", golds, f"It is {gold}.").outcome is Outcome.RIGHT
    assert grade_answer("Name a capital.", golds, "It is Cairo.").outcome is Outcome.WRONG


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("12 August 2012", Date(2012, 2012, 8, 12)),
        ("on Feb. 9th, 2018", Date(2018, 2018, 2, 9)),
        ("the 9th of February, 2018", Date(2018, 2018, 2, 9)),
        ("2018-02-09", Date(2018, 2018, 2, 9)),
        ("November 2016", Date(2016, 2016, 11)),
        ("7 April", Date(None, None, 4, 7)),
        ("in the 1930s", Date(1930, 1939)),
        ("the 1800s", Date(1800, 1899)),
        ("the nineteen-thirties", Date(1930, 1939)),
        ("the 5th century BC", Date(-500, -401)),
        ("nineteenth century", Date(1801, 1900)),
        ("AD 628", Date(628, 628)),
        ("$1000", None),
        ("1,500 men", None),
        ("May I?", None),
        ("between 1590 and 1592", None),
        ("35 June 1990", None),
    ],
)
def test_dates_are_read(text: str, date: Date | None) -> None:
    assert as_date(text) == date


@pytest.mark.parametrize(
    ("found", "gold", "how"),
    [
        ("1994", "3 March 1994", Agreement.COARSER),
        ("March 1994", "3 March 1994", Agreement.COARSER),
        ("3 March 1994", "1994", Agreement.SAME),
        ("2 March 1994", "3 March 1994", Agreement.CONFLICT),
        ("1936", "the 1930s", Agreement.SAME),
        ("the 1930s", "1936", Agreement.COARSER),
        ("20th century", "1936", Agreement.VAGUE),
        ("16th century", "1546", Agreement.COARSER),
        ("3rd century", "3rd century BC", Agreement.CONFLICT),
        ("1936", "7 April", Agreement.VAGUE),
        ("April", "7 April", Agreement.COARSER),
    ],
)
def test_dates_are_compared(found: str, gold: str, how: Agreement) -> None:
    ours, right = as_date(found), as_date(gold)
    assert ours is not None and right is not None
    assert agreement(ours, right) is how


@pytest.mark.parametrize(
    ("gold", "parts"),
    [
        ("Paris/Lyon", ("Paris", "Lyon")),
        ("2019/in 2019", ("2019", "in 2019")),
        ("ABC/ABC/ABD", ("ABC", "ABD")),
        ("John Hale/Jack Ford", ("John Hale", "Jack Ford")),
        ("120/80", ("120/80",)),
        ("70 mg/dL", ("70 mg/dL",)),
        ("AC/DC", ("AC/DC",)),
        ("and/or", ("and/or",)),
    ],
)
def test_alternatives_are_split(gold: str, parts: tuple[str, ...]) -> None:
    assert alternatives(gold) == parts


@pytest.mark.parametrize(
    ("gold", "question", "form"),
    [
        ("RAF Kinloss in Moray", "Where is it?", "RAF Kinloss"),
        ("on the island of Madagascar", "Where is it?", "Madagascar"),
        ("Sable Island of 1922", "Where is it?", "Sable Island"),
        ("week 6 of training", "When?", "week 6"),
        ("Elm Park metro station", "Which metro station is it?", "Elm Park"),
        ("5ft 9in", "How tall?", "5 feet 9 inches"),
        ("third season", "Which?", "season 3"),
    ],
)
def test_shorter_forms(gold: str, question: str, form: str) -> None:
    assert form in derived(gold, asked_by(question))


@pytest.mark.parametrize(
    ("gold", "question", "form"),
    [
        ("Gulf of Mexico", "Where is it?", "Mexico"),
        ("Dinner at Eight", "Which film is it?", "Dinner"),
        ("Kings in Exile", "What is the album called?", "Exile"),
        ("Kansas City", "Which city is it?", "Kansas"),
        ("A positive", "Which blood group?", "positive"),
        ("John Quincy Adams", "Who was it?", "John Adams"),
        ("Patrick Malone", "Who was it?", "Patricia Malone"),
    ],
)
def test_forms_that_would_say_something_else(gold: str, question: str, form: str) -> None:
    assert form not in derived(gold, asked_by(question))


def test_names() -> None:
    assert list(name_forms("Nora Jane Whitby")) == ["Nora Whitby", "Nora J Whitby"]
    assert list(name_forms("Sir Humphry Davy")) == ["Humphry Davy"]
    assert list(name_forms("Miles Porter, Jr.")) == ["Miles Porter"]
    assert list(name_forms("Vincent van Gogh")) == []
    assert "Pat Malone" in nicknames("Patrick Malone")
    vague = frozenset({"north"})
    assert short_names(["Florence Nightingale"], "Who?", vague) == ("Florence", "Nightingale")
    assert short_names(["North Korea"], "Which country?", vague) == ()
    names = frozenset({"post"})
    assert find_alone(words_of("It was Post who did it."), names) == [2]
    assert find_alone(words_of("It was Emily Post."), names) == []


@pytest.mark.parametrize(
    ("word", "other", "same"),
    [
        ("pictographs", "pictographic", True),
        ("india", "indian", True),
        ("constitution", "constitutional", True),
        ("niger", "nigeria", False),
        ("austria", "australia", False),
        ("cat", "catholic", False),
    ],
)
def test_related_words(word: str, other: str, same: bool) -> None:
    assert related(word, other) is same


def test_phrases_need_all_their_words() -> None:
    wanted = phrases(("Fireworks displays are held",), frozenset({"firework"}))
    said = words_of("The first display was held there.")
    half = words_of("It was held there.")
    assert [s.alias for s in find_covered(said, range(len(said)), wanted)] == [wanted[0].text]
    assert find_covered(half, range(len(half)), wanted) == []
    assert phrases(("John Adams", "Paris"), frozenset()) == ()


@pytest.mark.parametrize(
    ("copied", "meant"),
    [
        ("It was directed byJane Campion1.", "It was directed by Jane Campion."),
        ("It happened in 19831. Then more.", "It happened in 1983. Then more."),
        ("It opened in2013after a year.", "It opened in 2013 after a year."),
        ("He won.[3] She lost[^1^].", "He won. She lost."),
        ("Vitamin B12.", "Vitamin B12."),
        ("The MacDonald clan of the 1930s.", "The MacDonald clan of the 1930s."),
        ("It was 12345 km away.", "It was 12345 km away."),
    ],
)
def test_traces_of_copying_are_undone(copied: str, meant: str) -> None:
    assert repair(copied) == meant


@pytest.mark.parametrize(
    ("question", "gold", "value", "unit"),
    [
        ("How many are there?", "four", 4, None),
        ("How many years was it?", "three", 3, "years"),
        ("How long is it?", "42.195 km", 42.195, "km"),
        ("How far is it in miles?", "26.2", 26.2, "miles"),
    ],
)
def test_quantities_are_inferred(question: str, gold: str, value: float, unit: str | None) -> None:
    number = infer_number(question, [gold])
    assert number is not None
    assert (number.value, number.unit) == (value, unit)


@pytest.mark.parametrize(
    ("question", "gold"),
    [
        ("When was it?", "1983"),
        ("How old was he?", "27"),
        ("Which season?", "season 4"),
        ("How many?", "three or four"),
        ("How many people?", "the whole village"),
    ],
)
def test_what_is_no_quantity(question: str, gold: str) -> None:
    assert infer_number(question, [gold]) is None


def test_the_accuracy_script_counts_what_it_grades(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = [
        {"question": "Capital of France?", "gold": "Paris", "answer": "Paris.", "correct": True},
        {"question": "Capital of France?", "gold": "Paris", "answer": "Lyon.", "correct": True},
        {"question": "Capital of Italy?", "gold": "Rome", "answer": "Rome.", "correct": False},
        {"question": "Capital of Italy?", "gold": "Rome", "answer": "Milan.", "correct": False},
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    script = ROOT / "benchmarks/grader_accuracy.py"
    done = subprocess.run(
        [sys.executable, str(script), str(rows), "--errors", "5"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    table = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line}
    assert table["all"][1] == "4"
    assert table["all"][2] == "0.5000" and table["all"][4] == "0.5000"
    assert table["all"][-2:] == ["1", "1"]
    assert "missed: 1" in done.stdout
