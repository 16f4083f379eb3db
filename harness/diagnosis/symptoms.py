"""What is wrong with one reply, apart from its content."""

from __future__ import annotations

from collections.abc import Iterable

from harness.grading import courtesies, degenerate
from harness.grading.key import compile_probe
from harness.grading.language import ENGLISH, foreign_language
from harness.grading.normalise import clean, sentences, tokenise
from harness.grading.refusals import without_refusals
from harness.records import Answered, Outcome, Probe, SymptomKind

LECTURE_WORDS = 20
"""Words from which a reply that shares nothing with what was said is a lecture.

A reply of 40 tokens, the limit for facts, has about 28; "Hello! How can I help you?" has six.
"""

_COURTESIES = (*courtesies.ANY, courtesies.WELCOME, courtesies.FAREWELL, courtesies.PRESENT)


def symptoms_of(answered: Answered) -> tuple[SymptomKind, ...]:
    """The symptoms that one reply shows by itself, worst first; empty if its form is fine.

    A reply graded right is in no other language, declines nothing and lectures nobody.
    STYLE_BLEED and WRONG_ANSWER need other replies and are found by `diagnose`, and whether a
    RUNAWAY is one depends on the base: the limit may be short.
    """
    text = clean(answered.response.text)
    found: set[SymptomKind] = set()
    if degenerate.is_blank(degenerate.first_turn(text)):
        found.add(SymptomKind.EMPTY)
    elif degenerate.loop(degenerate.first_turn(text)) is not None:
        found.add(SymptomKind.LOOP)
    if degenerate.template_leak(text) is not None:
        found.add(SymptomKind.TEMPLATE_LEAK)
    if answered.response.finish == "length":
        found.add(SymptomKind.RUNAWAY)
    if answered.grade.outcome is not Outcome.RIGHT and SymptomKind.EMPTY not in found:
        found |= _of_wrong_reply(answered, text, found)
    return tuple(kind for kind in SymptomKind if kind in found)


def content_words(text: str) -> frozenset[str]:
    """Stems of the words that carry a meaning: no function words, figures or single letters."""
    return frozenset(
        token.stem
        for token in tokenise(clean(text))
        if len(token.norm) > 1 and token.norm.isalpha() and token.raw.casefold() not in ENGLISH
    )


def _of_wrong_reply(
    answered: Answered, text: str, found: Iterable[SymptomKind]
) -> set[SymptomKind]:
    """What only a reply that is not right can be blamed for."""
    probe = answered.probe
    if _foreign(probe, text):
        return {SymptomKind.WRONG_LANGUAGE}
    if _declines(text):
        return {SymptomKind.REFUSAL}
    explained = SymptomKind.LOOP in found or SymptomKind.TEMPLATE_LEAK in found
    return {SymptomKind.LECTURE} if not explained and _lectures(answered, text) else set()


def _foreign(probe: Probe, text: str) -> bool:
    known = compile_probe(probe).mask if probe.grader == "fact" else None
    language = foreign_language(text, known=known)
    return language is not None and language != foreign_language(probe.prompt)


def _declines(text: str) -> bool:
    """True where nothing is left of the first sentence once its refusal is taken out."""
    first = next(iter(sentences(text)), "")
    rest, refused = without_refusals(first)
    return refused and degenerate.is_blank(rest)


def _lectures(answered: Answered, text: str) -> bool:
    probe = answered.probe
    if probe.grader == "greeting":
        if answered.grade.reason.startswith("lecture"):
            return True
        if any(f.search(part) for f in _COURTESIES for part in sentences(text)):
            return False
    words = sum(token.norm[0].isalnum() for token in tokenise(text))
    if words < LECTURE_WORDS:
        return False
    asked = " ".join((probe.prompt, *probe.accepted, *probe.distractors))
    return not content_words(asked) & content_words(text)
