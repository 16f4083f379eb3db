"""Grading rows that nobody wrote as a probe: a question, a gold answer and what was answered.

A written probe says whether its answer is a number or a date, what else it may be called and what
is wrong. Here that is inferred from the gold answer and the question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from harness.errors import UsageError
from harness.grading import forms, numbers, people, units
from harness.grading.facts import grade_by
from harness.grading.key import Key, Row, compile_key
from harness.grading.normalise import clean, tokenise
from harness.grading.repair import repair
from harness.records import Grade, Number, Outcome, Probe

_MANY = 4
"""Things asked for from which one may be missing: it is mostly there, in another spelling."""
_COUNTS = {"both": 2, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}
_SO_MANY = re.compile(
    rf"\b(?:name|which|what|list|give|state|who)(?: are| were)?(?: the| all| both)* "
    rf"({'|'.join(_COUNTS)})\b",
    re.IGNORECASE,
)
_MEANS = {"yes": True, "true": True, "correct": True, "no": False, "false": False}
_OPENS = re.compile(r"\W*(yes|true|correct|no|false)\b(?![ -](?:one|other|matter|idea)\b)", re.I)
_ASIDE = re.compile(r"(?<=\W)\([^()]*\)$")
_SAYS = re.compile(r"[^\W_]")
_HOW_MUCH = re.compile(
    r"\bhow (?:many|much|long|far|tall|old|high|deep|big|large|wide|heavy|fast|hot|cold|often)\b"
    r"|\b(?:number|percent(?:age)?|population|height|weight|length|distance|speed|temperature|"
    r"circumference|diameter|pressure|mass|volume|area|density|frequency|atomic number|age|"
    r"(?:boiling|melting|freezing) point) (?:of|to|from|between)\b"
    r"|\b(?:what|which) (?:temperature|speed|distance|height|depth|weight|length|percent(?:age)?)"
    r"\b",
    re.IGNORECASE,
)
_HOW_MANY = re.compile(r"\bhow many\b|\b(?:number|population) of\b", re.IGNORECASE)
_ROUGHLY = re.compile(
    r"\b(?:about|around|approximately|approx|roughly|nearly|almost|some|circa|estimated|average)\b"
    r"|~",
    re.IGNORECASE,
)
_ROUGH = 0.02
"""Relative error accepted where question or gold says "about"."""
_FINE = 0.001
"""Relative error accepted of a gold with four or more digits, which people round."""


def grade_answer(question: str, gold: str | Sequence[str], answer: str) -> Grade:
    """Grades `answer` to `question` by `gold`: one right answer, or several of which one will do.

    A string may hold several, separated by "/". All are needed where the question asks for just as
    many ("Name the three …"). Raises UsageError where `gold` is empty.
    """
    golds = forms.alternatives(gold) if isinstance(gold, str) else tuple(gold)
    golds = tuple(g for g in (g.strip() for g in golds) if _SAYS.search(_ASIDE.sub("", g)))
    if not golds:
        raise UsageError("a row has no gold answer; give one, or a list of those that count")
    repaired = repair(answer, golds)
    if _wants_all(question, golds):
        return _all_of(question, golds, repaired)
    return _yes_or_no(golds, repaired) or grade_by(_key(question, golds), repaired)


def _wants_all(question: str, golds: tuple[str, ...]) -> bool:
    """True where the question asks for as many things as there are golds ("Name the three …")."""
    match = _SO_MANY.search(question)
    if match is None or _COUNTS.get(match[1].casefold()) != len(golds):
        return False
    words = [{t.stem for t in numbers.words_of(g) if t.norm[0].isalnum()} for g in golds]
    return all(a.isdisjoint(b) for i, a in enumerate(words) for b in words[i + 1 :])


def _all_of(question: str, golds: tuple[str, ...], answer: str) -> Grade:
    grades = [(g, grade_by(_key(question, (g,)), answer)) for g in golds]
    missing = [gold for gold, grade in grades if grade.outcome is not Outcome.RIGHT]
    if len(missing) <= (len(golds) >= _MANY):
        return Grade(outcome=Outcome.RIGHT, reason="names all that were asked for")
    if all(grade.outcome is Outcome.NO_ANSWER for _, grade in grades):
        return grades[0][1]
    return Grade(outcome=Outcome.WRONG, reason=f"leaves out '{missing[0]}'", extracted=answer)


def _yes_or_no(golds: tuple[str, ...], answer: str) -> Grade | None:
    """The grade of a yes/no row whose answer opens with yes, no, true or false."""
    wanted = {_MEANS.get(g.casefold().rstrip(".")) for g in golds} - {None}
    said = _OPENS.match(answer)
    if len(wanted) != 1 or said is None:
        return None
    right = _MEANS[said[1].casefold()] in wanted
    outcome = Outcome.RIGHT if right else Outcome.WRONG
    return Grade(outcome=outcome, reason=f"says '{said[1]}'", extracted=answer.strip())


@lru_cache(maxsize=1024)
def _key(question: str, golds: tuple[str, ...]) -> Key:
    probe = Probe(
        id="row",
        grader="fact",
        prompt=question or "?",
        accepted=forms.all_forms(golds, question),
        number=infer_number(question, golds),
        category="free",
        source="the row",
    )
    row = Row(
        written=golds,
        short=people.short_names(golds, question, forms.VAGUE),
        surnames=people.surnames(golds, question, forms.VAGUE),
    )
    return compile_key(probe, row)


def infer_number(question: str, golds: Sequence[str]) -> Number | None:
    """The quantity that the first numeric gold says, where the question asks for one."""
    if not _HOW_MUCH.search(question):
        return None
    for gold in golds:
        prepared = units.prepare(clean(_ROUGHLY.sub("", gold)).strip())
        tokens = numbers.merge_numbers(tokenise(prepared))
        found = numbers.quantities(prepared, tokens)
        if len(found) != 1:
            continue
        words = [t for t in tokens if t.norm[0].isalnum() or t.norm == "%"]
        quantity = found[0]
        unit, end = units.read_unit(prepared, tokens[quantity.last].end)
        rest = [t for t in words if t.start >= end and t.norm[0].isalpha()]
        if quantity.first > 1 or len(rest) > (0 if unit else 1):
            continue
        asked = _unit_asked(question)
        if unit is None and asked is None and not _HOW_MANY.search(question):
            continue  # "27" to "how old": years, but the row does not say so
        spelled = prepared[tokens[quantity.last].end : end].strip()
        name = spelled if unit else asked
        digits = len(tokens[quantity.first].norm.replace(".", "").rstrip("0"))
        rough = _ROUGHLY.search(question) or _ROUGHLY.search(gold)
        tolerance = _ROUGH if rough else _FINE if digits >= 4 else 0.0
        return Number(value=quantity.low, high=quantity.high, unit=name, tolerance=tolerance)
    return None


def _unit_asked(question: str) -> str | None:
    """The unit of "how many years" or "… in miles?"; None where something else is counted."""
    for pattern in (r"\bhow many (\w+)", r"\bin (\w+)\W*$"):
        match = re.search(pattern, question, re.IGNORECASE)
        if match and units.unit_named(match[1]).dimension:
            return match[1]
    return None
