"""The parts the graders are made of: words, numbers, units, language."""

from __future__ import annotations

import pytest

from harness.grading.degenerate import first_turn, loop, template_leak
from harness.grading.language import foreign_language
from harness.grading.normalise import clean, sentences, singular, stem, tokenise
from harness.grading.numbers import merge_numbers, quantities, words_of
from harness.grading.refusals import without_refusals
from harness.grading.units import prepare, unit_named


def _norms(text: str) -> list[str]:
    return [token.norm for token in words_of(text)]


@pytest.mark.parametrize(
    ("british", "american"),
    [
        ("anaemia", "anemia"),
        ("oedema", "edema"),
        ("haemoglobin", "hemoglobin"),
        ("tumours", "tumors"),
        ("litre", "liter"),
        ("sulphate", "sulfate"),
        ("leucocyte", "leukocyte"),
        ("paralyse", "paralyze"),
        ("immunisation", "immunization"),
        ("diarrhoea", "diarrhea"),
        ("fœtus", "fetus"),
        ("Sjögren's", "sjogren"),
        ("μ-opioid", "mu opioid"),
        ("non-steroidal", "nonsteroidal"),
    ],
)
def test_spellings_meet(british: str, american: str) -> None:
    assert _norms(british) == _norms(american)


@pytest.mark.parametrize(
    ("plural", "word"),
    [
        ("kidneys", "kidney"),
        ("arteries", "artery"),
        ("biopsies", "biopsy"),
        ("vertebrae", "vertebra"),
        ("diagnoses", "diagnosis"),
        ("bacteria", "bacterium"),
        ("teeth", "tooth"),
        ("reflexes", "reflex"),
        ("pancreas", "pancrea"),
        ("virus", "virus"),
        ("scurvy", "scurvy"),
        ("arthritis", "arthritis"),
    ],
)
def test_singular(plural: str, word: str) -> None:
    assert singular(plural) == word


def test_stem_joins_the_forms_of_a_verb() -> None:
    assert len({stem(w) for w in ("lower", "lowers", "lowered", "lowering")}) == 1
    assert len({stem(w) for w in ("produce", "produces", "produced", "producing")}) == 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("two hundred and six", "206"),
        ("twenty-four", "24"),
        ("one thousand, two hundred", "1200"),
        ("1,000", "1000"),
        ("5.50", "5.5"),
        ("37,5", "37.5"),
        ("5.5 million", "5500000"),
        ("a dozen", "12"),
        ("15th", "15"),
        ("120 over 80", "120/80"),
        ("thirty-seven point five", "37.5"),
        ("three hundred thousand", "300000"),
        ("nineteen", "19"),
        ("007", "7"),
    ],
)
def test_numbers_become_digits(text: str, number: str) -> None:
    assert [n for n in _norms(text) if n[0].isdecimal()] == [number]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("twenty fifteen", ["20", "15"]),
        ("five, six", ["5", "6"]),
        ("four and two hundred", ["4", "200"]),
    ],
)
def test_neighbouring_numbers_stay_apart(text: str, numbers: list[str]) -> None:
    assert [n for n in _norms(text) if n[0].isdecimal()] == numbers


@pytest.mark.parametrize(
    ("value", "unit", "other", "other_unit"),
    [
        (37.0, "°C", 98.6, "°F"),
        (100.0, "mg/dL", 1.0, "g/L"),
        (1.0, "kcal", 4.184, "kJ"),
        (5.0, "L", 5000.0, "mL"),
        (1.0, "in", 2.54, "cm"),
        (60.0, "bpm", 1.0, "beats per second"),
        (1.0, "kPa", 7.50061683, "mmHg"),
        (2.0, "mEq/L", 2.0, "mmol/L"),
        (1.0, "g per day", 1000.0, "mg a day"),
    ],
)
def test_units_convert(value: float, unit: str, other: float, other_unit: str) -> None:
    # "in" alone is a preposition in text, so only the written-out inch is a unit.
    first = unit_named("inch" if unit == "in" else unit)
    second = unit_named(other_unit)
    assert first.dimension == second.dimension != ""
    assert first.to_base(value) == pytest.approx(second.to_base(other))


def test_what_is_counted_is_no_unit() -> None:
    assert unit_named("bones").dimension == ""
    assert unit_named(None).dimension == ""


def _quantities(text: str) -> list[tuple[float, float | None]]:
    prepared = prepare(clean(text))
    return [(q.low, q.high) for q in quantities(prepared, merge_numbers(tokenise(prepared)))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("60 to 100 bpm", [(60, 100)]),
        ("between 60 and 100", [(60, 100)]),
        ("60–100", [(60, 100)]),
        ("60 bpm to 100 bpm", [(60, 100)]),
        ("60 and 100", [(60, None), (100, None)]),
        ("100 to 60", [(100, None), (60, None)]),
        ("120/80", []),
        ("36.1–37.2 °C", [(36.1, 37.2)]),
    ],
)
def test_ranges(text: str, found: list[tuple[float, float | None]]) -> None:
    assert _quantities(text) == found


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("L'insuline.", "French"),
        ("El páncreas.", "Spanish"),
        ("Die Leber.", None),
        ("Die Leber ist das größte Organ.", "German"),
        ("Il fegato è un organo.", "Italian"),
        ("De alvleesklier maakt het.", "Dutch"),
        ("O fígado não é grande.", "Portuguese"),
        ("胰岛素", "Cjk script"),
        ("Печень", "Cyrillic script"),
        ("Wątroba produkuje żółć każdą", "another language"),
        ("Insulin.", None),
        ("Patients die of it.", None),
        ("Leonardo da Vinci", None),
        ("Las Vegas", None),
        ("SA node", None),
        ("vitamin E", None),
        ("α-amylase", None),
        ("Take 500 mg per day", None),
        ("Guillain-Barré syndrome", None),
        ("", None),
    ],
)
def test_language(text: str, language: str | None) -> None:
    assert foreign_language(clean(text)) == language


def test_sentences_end_where_they_should() -> None:
    text = "Dr. Smith gave 2.5 mg, e.g. at night. It helped!\n1. Heart\n2. Liver"
    assert sentences(text) == [
        "Dr. Smith gave 2.5 mg, e.g. at night.",
        "It helped!",
        "1. Heart",
        "2. Liver",
    ]
    assert sentences("It is 206. It is vitamin C. So there.") == [
        "It is 206.",
        "It is vitamin C.",
        "So there.",
    ]


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("no no no no no no", "no"),
        ("a b c a b c a b c a b c", None),
        ("The liver. " * 6, "the liver"),
        ("Insulin lowers it and glucagon raises it.", None),
        ("ha" * 20, "ha"),
        ("", None),
        ("The heart pumps blood. The heart has four chambers. The heart beats.", None),
    ],
)
def test_loop(text: str, unit: str | None) -> None:
    found = loop(text)
    if text.startswith("a b c"):
        assert found is not None and sorted(found.split()) == ["a", "b", "c"]
    else:
        assert found == unit


def test_leaks_and_turns() -> None:
    assert template_leak("Hello!<|im_end|>") == "<|im_end|>"
    assert template_leak("blood pressure < 120 | > 80") is None
    assert first_turn("Answer: insulin</s>User: hi").strip() == "insulin"
    assert first_turn("<|im_start|>") == ""


@pytest.mark.parametrize(
    ("sentence", "rest", "dropped"),
    [
        ("I'm not a doctor, but insulin lowers it.", "insulin lowers it.", True),
        ("I don't know.", "", True),
        ("Insulin lowers it.", "Insulin lowers it.", False),
        ("Please ask your doctor.", "", True),
        ("You cannot live without it.", "You cannot live without it.", False),
    ],
)
def test_refusals_are_taken_out(sentence: str, rest: str, dropped: bool) -> None:
    assert without_refusals(sentence) == (rest, dropped)


def test_an_answer_may_itself_be_a_referral() -> None:
    assert (
        without_refusals("Please see a doctor.", keep_referrals=True)[0] == "Please see a doctor."
    )
