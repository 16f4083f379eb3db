"""A probe prepared for matching: aliases, quantities, dates, and the words of its question."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from harness.grading import aliases, coverage, dates, numbers
from harness.grading.normalise import clean, normal_word, stem, word_set
from harness.grading.refusals import is_referral
from harness.records import Probe

_STOPWORDS = word_set(
    """a an the of in on at to for from by with and or is are was were be been being do does did
    what which who whom whose when where why how many much name called known give this that these
    those it its as used most one can will would should if not than into about your you person
    normal typical usual human people body common commonly main per i me my"""
)
_WORDS = re.compile(r"\w+(?:[.,]\w+)*|[%<>°]")
_RANGE_ASKED = re.compile(r"\brange\b|\bbetween\b", re.IGNORECASE)
_HOW_MANY = re.compile(
    r"\bhow many ((?:(?!(?:are|is|were|was|do|does|did|in|of|has|have|had|can|could|will|would|on|"
    r"there|it|a|an|the|to|for|at|you)\b)\w+ ?){1,3})",
    re.IGNORECASE,
)
_OPEN_QUESTION = re.compile(r"\W*(?:in |at |on )?(?:what|who|which|where)\b", re.IGNORECASE)
_PAST_FORMS = (
    "fall fell, begin began, write wrote, win won, become became, build built, sing sang, go "
    "went, come came, take took, give gave, leave left, hold held, fight fought, fly flew, buy "
    "bought, sell sold, lose lost, make made, meet met, speak spoke, draw drew, rise rose, sink "
    "sank, break broke, get got, lead led, find found, teach taught, think thought, bring "
    "brought, choose chose, run ran, say said, die died"
)
_PAST = {
    stem(present): stem(past)
    for present, past in (pair.split() for pair in _PAST_FORMS.split(", "))
}
"""Stem of a verb in the question → that of its past in the answer."""


class Row(NamedTuple):
    """What is known of a free row beside the forms of its gold answers."""

    written: tuple[str, ...]
    """The gold answers as they were given."""
    short: tuple[str, ...]
    """Parts of names that are right as the whole answer."""
    surnames: tuple[str, ...]
    """Last names that may stand for the person asked for."""


class Key(NamedTuple):
    """A probe compiled for matching."""

    gold: tuple[aliases.Alias, ...]
    rivals: tuple[aliases.Alias, ...]
    rival_words: frozenset[str]
    targets: tuple[numbers.Target, ...]
    question: frozenset[str]
    """Stems of the prompt's content words."""
    asked: frozenset[str]
    """For a free row that asks what, who, which or where: the stems, verbs as they are asked."""
    prompt: tuple[str, ...]
    """All words of the prompt, normalised."""
    mask: re.Pattern[str]
    """Accepted forms as written, cut out before the language is judged."""
    verbatim: dict[str, tuple[bool, str]]
    """Plain words of each accepted form and distractor → (gold, as the probe writes it)."""
    strict: bool
    range_asked: bool
    keep_referrals: bool
    dates: tuple[dates.Date, ...]
    """Accepted forms that are dates; none where the answer is a quantity."""
    known_years: frozenset[int]
    """Years that the question names."""
    surnames: frozenset[str]
    """For a free row that asks who: last names that may stand for the person."""
    phrases: tuple[coverage.Phrase, ...]
    """For a free row: gold answers of which a sentence may say the words in its own order."""
    counted: frozenset[str]
    """Stems of what the question counts: "seasons" in "how many seasons are there"."""
    free: bool
    """True for a row that nobody wrote as a probe: its gold says only what one person noted."""


@lru_cache(maxsize=4096)
def compile_probe(probe: Probe) -> Key:
    """The probe prepared for matching; cached, since one probe grades many responses."""
    return compile_key(probe)


def compile_key(probe: Probe, row: Row | None = None) -> Key:
    """A probe prepared for matching; with `row`, a free row in the shape of a probe."""
    gold = aliases.compile_aliases(probe.accepted, strict=probe.strict)
    prompt = numbers.words_of(probe.prompt)
    gold_stems = {t.stem for t in numbers.words_of(probe.accepted[0])}
    taken = {a.norms for a in gold}
    rivals = tuple(
        a for a in aliases.compile_aliases(probe.distractors, strict=True) if a.norms not in taken
    )
    targets: tuple[numbers.Target, ...] = ()
    if probe.number is not None:
        targets = numbers.targets(probe.number, probe.accepted)
        # Quantities are compared by value; as words, "4" would be found in "4 hours" too.
        # A free row may count what no unit is known for ("4 innings"): its words stay.
        gold = tuple(a for a in gold if not a.plain_number or (row and len(a.words) > 1))
        rivals = tuple(a for a in rivals if not a.plain_number)
    stems = frozenset(t.stem for t in prompt if t.norm[0].isalnum() and t.norm not in _STOPWORDS)
    said = stems | {_PAST[s] for s in stems if s in _PAST}
    days = () if probe.number else [d for a in probe.accepted if (d := dates.as_date(a))]
    forms = sorted(probe.accepted, key=len, reverse=True)
    return Key(
        gold=gold,
        rivals=rivals,
        rival_words=frozenset(w.norm for a in rivals for w in a.words),
        targets=targets,
        question=said - gold_stems,
        asked=stems - gold_stems if row and _OPEN_QUESTION.match(probe.prompt) else frozenset(),
        prompt=tuple(t.norm for t in prompt if t.norm[0].isalnum()),
        mask=re.compile(
            r"(?<!\w)(?<!')(?:" + "|".join(re.escape(clean(f)) for f in forms) + r")(?!\w)", re.I
        ),
        verbatim={plain(clean(d)): (False, d) for d in probe.distractors}
        | {plain(clean(name)): (True, name) for name in (row.short if row else ())}
        | {plain(clean(a)): (True, a) for a in probe.accepted},
        strict=probe.strict,
        range_asked=bool(_RANGE_ASKED.search(probe.prompt)),
        keep_referrals=any(
            is_referral(f"please {a}") or "doctor" in a.casefold() for a in probe.accepted
        ),
        dates=tuple(dict.fromkeys(days)),
        known_years=dates.years(probe.prompt),
        phrases=coverage.phrases(row.written if row else (), stems),
        counted=_counted(probe.prompt),
        surnames=frozenset(normal_word(n) for n in (row.surnames if row else ())),
        free=row is not None,
    )


def _counted(prompt: str) -> frozenset[str]:
    match = _HOW_MANY.search(prompt)
    return frozenset(t.stem for t in numbers.words_of(match[1])) if match else frozenset()


def plain(cleaned: str) -> str:
    """Lower-case words, accents kept: "Pancréas" is not "pancreas"."""
    return " ".join(_WORDS.findall(cleaned.casefold()))
