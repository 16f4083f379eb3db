"""Shorter and other ways in which people say a gold answer.

"Peter Alan Marlow" is also "Peter Marlow", "RAF Kinloss in Moray" also "RAF
Kinloss", "30-year span" also "30 years", and where the question asks "which state", "Johor
State" is also "Johor". Only for free rows: a written probe lists its own forms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from harness.grading import people
from harness.grading.dates import ORDINALS
from harness.grading.normalise import Token, clean, word_set
from harness.grading.numbers import words_of

_PARENTHESIS = re.compile(r"\s*\([^()]*\)")
_QUOTED = re.compile(r"^[\"'](.+)[\"'][.,]?$|^[\"']([^\"']+)[\"',.]*$")
_NICKNAME = re.compile(
    r"(?P<first>[A-Z][\w.-]+) [\"'(](?P<nick>[A-Z][\w.]+)[\"')] (?P<rest>[A-Z].+)"
)
_OPENING = re.compile(
    r"^(?!A (?:positive|negative|[A-Z]\b))(?:in|on|at|by|from|to|for|as|with|during|around|about|"
    r"approximately|nearly|roughly|circa|probably|possibly|loosely|partly|largely|primarily|"
    r"originally|usually|mainly|mostly|is|are|was|were|be|the|a|"
    r"an|believed to be|known as|based in|founded by|written by|credited to|located in|"
    r"directed by|called|named|it is|sometime|every|each|his|her|their|its|or|and) (?=\S)",
    re.IGNORECASE,
)
_KIND = re.compile(
    r"^(?:the )?(?:continent|city|town|village|state|country|county|island|planet|province|"
    r"kingdom|republic|month|year|nation|district|port|company|band) of (?=[A-Z1-9])",
    re.IGNORECASE,
)
_PROPER = r"(?:[A-Z][\w.'&-]*|\d+)"
_TAIL = re.compile(
    rf"^((?:the )?{_PROPER}(?: (?:of |the |de |von |van )?{_PROPER})+),?"
    r" (?:(?:in|at|on|as|near|with|who|which|by|during|from|for|and h(?:is|er)|along) \S|of \d).*"
)
_WORK = re.compile(
    r"\b(?:which|what|(?:title|name) of) (?:[\w'-]+ ){0,4}?(?:film|movie|song|album|book|novel|"
    r"play|show|musical|series|painting|poem|title|single|sitcom|opera|track|hit|story|programme)"
    r"s?\b",
    re.IGNORECASE,
)
_EITHER = re.compile(r"(?:either )?((?:\S+ ?){1,4}),? or ((?:\S+ ?){1,4})")
_NO_WORK = re.compile(r"\b(?:who|whom|where|when|whose)\b", re.IGNORECASE)
_COUNTED_TAIL = re.compile(
    r"^((?:\w+[ -]){0,2}?\d[\w.,]*(?: \w+)?|\w+ \d+) (?:of|after|before|in|by|with|for|from|on) .+$"
)
_NO_NOUN = r"(?!(?:of|and|in|on|at|for|to|from|by|with|the|a|an|de|la|von|van|or|is|as)\b)"
_DESCRIPTOR = re.compile(
    rf"^(?:{_PROPER} )?(?:{_NO_NOUN}[a-z][\w/-]* ){{1,3}}(?=[A-Z])"
    r"|^[A-Z]?[a-z]+(?:er|or|ist|ian|man|woman|ess|eer|ete)s? (?=[A-Z][\w'-]+ [A-Z][\w'-]+)"
)
_ABBREVIATED = {
    "yrs": "years", "yr": "year", "ft": "feet", "hrs": "hours", "hr": "hour", "mins": "minutes",
    "secs": "seconds", "lbs": "pounds", "mi": "miles", "st": "saint", "mt": "mount",
    "km": "kilometers", "kg": "kilograms", "ft.": "feet", "in.": "inches", "st.": "saint",
    "mt.": "mount", "&": "and", "u.s.": "United States", "us": "United States",
    "usa": "United States", "u.s.a.": "United States", "uk": "United Kingdom",
    "u.k.": "United Kingdom",
}  # fmt: skip
_EQUAL = (
    ("United States of America", "United States", "USA", "U.S.A.", "US", "U.S.", "America"),
    ("United Kingdom", "UK", "U.K.", "Great Britain", "Britain"),
    ("Soviet Union", "USSR", "U.S.S.R."), ("United Nations", "UN", "U.N."),
    ("European Union", "EU"), ("People's Republic of China", "China", "PRC"),
    ("Netherlands", "Holland"), ("World War II", "World War Two", "Second World War", "WWII"),
    ("World War I", "World War One", "First World War", "WWI", "Great War"),
    ("New York City", "NYC", "New York"), ("Los Angeles", "LA", "L.A."),
    ("Washington, D.C.", "Washington DC"), ("television", "TV"),
)  # fmt: skip
VAGUE = word_set(
    """a an the of in on at by to from for as and or new old first second third great big high low
    north south east west northern southern eastern western red blue green white black royal united
    national international central upper lower left right long short small large good best most one
    two three four five american english british french german indian city state county river
    island mount saint san is was are were with their its his her"""
)
MOST = 60
"""Forms kept of one gold answer."""


def alternatives(gold: str) -> tuple[str, ...]:
    """The answers of a gold string that separates them by "/"; 120/80, mg/dL, AC/DC stay whole."""
    if "/" not in gold:
        return (gold,)
    parts = [p.strip() for p in gold.split("/")]
    whole = any(_joined(a, b) for a, b in pairwise(parts))
    if whole and len(parts) == 2:
        return (gold,)
    return tuple(dict.fromkeys(p for p in parts if p))


def _joined(left: str, right: str) -> bool:
    """True where "/" belongs to the answer: 120/80, mg/dL, and/or, AC/DC, s/he, 9/11."""
    a, b = left.split(" ")[-1], right.split(" ")[0]
    if not a or not b or a.casefold() == b.casefold():
        return False
    if a[-1].isdecimal() and b[0].isdecimal():
        return len(a) <= 3 and len(b) <= 3
    if a.casefold() == "and" and b.casefold() == "or":
        return True
    single = all(len([w for w in x.split() if not w[0].isdecimal()]) == 1 for x in (left, right))
    short = len(a) <= 3 and len(b) <= 3 and a.isalpha() and b.isalpha()
    return single and short and (a.isupper() == b.isupper() or left[0].isdecimal())


class Asked(NamedTuple):
    """What a question tells about the kind of its answer."""

    words: tuple[Token, ...]
    person: bool
    work: bool
    """A film, a song, a book: its title is not taken apart."""
    one_of_them: bool
    """It asks for a person and not for several."""


def asked_by(question: str) -> Asked:
    """Reads a question."""
    work = bool(_WORK.search(question)) and not _NO_WORK.search(question)
    person = bool(_WHO.search(question))
    one = person and not work and not _SEVERAL.search(question)
    return Asked(tuple(words_of(question)), person, work, one)


def derived(gold: str, asked: Asked) -> tuple[str, ...]:
    """Other forms of one gold answer, without the answer as written."""
    found: dict[str, str] = {}
    queue = [clean(gold).strip()]
    for form in queue:
        if form.casefold() in found or len(found) >= MOST:
            continue
        found[form.casefold()] = form
        new = (f.strip(" ,.;:") for f in _steps(form, asked))
        queue += [f for f in new if len(f) > 1 or f.isalnum()]
    if asked.person:
        # Last and once: "Pat" is Patrick or Patricia, but Patrick is not Patricia.
        for form in list(found.values()):
            found |= {nick.casefold(): nick for nick in people.nicknames(form)}
    return tuple(f for f in found.values() if f != gold)


_WHO = re.compile(
    r"\b(?:who|whom|whose|name|names|actors?|actress(?:es)?|singers?|authors?|writers?|players?|"
    r"president|minister|king|queen|composers?|directors?|scientist|man|woman|person|artists?|"
    r"painter|poet|inventor|composer|explorer|driver|footballer|comedian)\b",
    re.IGNORECASE,
)


_SEVERAL = re.compile(
    r"\b(?:two|three|four|both|pair|duo|couple|twins?|brothers|sisters|partners|who (?:are|were)|"
    r"which [\w ]{0,20}s (?:are|were)|double act|team|band|group)\b",
    re.IGNORECASE,
)


def _steps(form: str, asked: Asked) -> Iterator[str]:
    yield _PARENTHESIS.sub("", form)
    quoted = _QUOTED.match(form)
    if quoted:
        yield quoted.group(1) or quoted.group(2)
    nick = _NICKNAME.fullmatch(form)
    if nick:
        yield f"{nick['first']} {nick['rest']}"
        yield f"{nick['nick']} {nick['rest']}"
    yield _OPENING.sub("", form, count=1)
    yield _KIND.sub("", form, count=1)
    if not asked.work:  # "Dinner at Eight" is no dinner
        for pattern in (_TAIL, _COUNTED_TAIL):
            head = pattern.match(form)
            if head:
                yield head.group(1)
        either = _EITHER.fullmatch(form)
        if either:
            yield from either.groups()
    if asked.one_of_them:
        yield from people.partners(form)
    if asked.person:
        yield _DESCRIPTOR.sub("", form, count=1)
        yield from people.name_forms(form)
    yield from _equal_names(form)
    yield from _ordinals(form)
    yield from _counted(form)
    yield from _without_echo(form, asked.words)


def _equal_names(form: str) -> Iterator[str]:
    small = form.casefold().removeprefix("the ")
    for group in _EQUAL:
        if any(small == name.casefold() for name in group):
            yield from group
    words = form.split()
    if any(w.casefold() in _ABBREVIATED for w in words[1:]):
        yield " ".join(_ABBREVIATED.get(w.casefold(), w) if i else w for i, w in enumerate(words))


def _ordinals(form: str) -> Iterator[str]:
    """ "fourth" is also "4th", "the third season" also "season 4"."""
    spelled = _SPELLED_ORDINAL.search(form)
    if spelled:
        number = _with_ending(ORDINALS[spelled.group().casefold()])
        yield form[: spelled.start()] + number + form[spelled.end() :]
    match = _PLACE.search(form)
    if match:
        yield form[: match.start()] + f"{match[2]} {match[1]}" + form[match.end() :]
    match = _COUNTED_PLACE.search(form)
    if match:
        n = int(match[2])
        yield form[: match.start()] + f"{_with_ending(n)} {match[1]}" + form[match.end() :]
        words = [w for w, value in ORDINALS.items() if value == n]
        yield from (form[: match.start()] + f"{w} {match[1]}" + form[match.end() :] for w in words)


def _with_ending(n: int) -> str:
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


_SPELLED_ORDINAL = re.compile(
    rf"\b(?:{'|'.join(sorted(ORDINALS, key=len, reverse=True))})\b", re.IGNORECASE
)
_PLACED = "season|series|episode|week|chapter|book|grade|round|day|verse|act|game|part|volume"
_PLACE = re.compile(rf"\b(\d+)(?:st|nd|rd|th) ({_PLACED})\b", re.IGNORECASE)
_COUNTED_PLACE = re.compile(rf"\b({_PLACED}) (\d{{1,3}})\b", re.IGNORECASE)


def _counted(form: str) -> Iterator[str]:
    match = _AGE.match(form)
    if match:
        yield f"{match[1].strip()} {'feet' if match[2] == 'foot' else match[2] + 's'}"
        if match[3] and match[3].casefold() == "old":
            yield match[1]
    match = _FEET.fullmatch(form)
    if match:
        yield f"{match[1]} feet {match[2]} inches"
        yield f"{match[1]}'{match[2]}\""
        yield f"{match[1]}'{match[2]}"
    if _STUCK_UNIT.search(form):
        yield _STUCK_UNIT.sub(r"\1 \2", form)


_AGE = re.compile(
    r"^(\d[\d.,]*|(?:(?:an?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|"
    r"thirty|forty|fifty|sixty)\b ?)+)[- ]?(second|minute|hour|day|night|week|month|year|decade|"
    r"mile|foot|game|episode|season|point|time)s?(?:[- ](old|period|long|span|term|run))?$",
    re.IGNORECASE,
)
_FEET = re.compile(
    r"(\d+) ?(?:ft|feet|foot|')\.?,? ?(\d+(?:\.\d+)?) ?(?:in|inch|inches|\")\.?", re.IGNORECASE
)
_STUCK_UNIT = re.compile(
    r"(\d)(ft|in|mi|km|kg|lbs?|m|cm|mm|yrs?|hrs?|mins?|am|pm)\b", re.IGNORECASE
)


def _without_echo(form: str, asked: Sequence[Token]) -> Iterator[str]:
    """The form without words at its end that the question already says."""
    if "(" in form:
        return
    small = {t.stem for t in asked if not t.raw[:1].isupper()}
    named = {t.stem for t in asked}
    tokens = [t for t in words_of(form) if t.norm[0].isalnum()]
    last = len(tokens)
    # "Schwartz" is no such word where the question asks about "Bernard Schwartz".
    while last > 1 and tokens[last - 1].stem in (
        named if tokens[last - 1].raw.islower() else small
    ):
        last -= 1
    dropped = tokens[last:]
    while last > 1 and tokens[last - 1].norm in _LINKS:
        last -= 1
    kept = tokens[:last]
    if dropped and not any(t.norm == "city" for t in dropped) and _telling(kept):
        yield clean(form)[: kept[-1].end]


_LINKS = word_set("of the in on at a an and for to")


def _telling(tokens: list[Token]) -> bool:
    """True where what is left says something by itself."""
    return any(
        (len(t.norm) >= 4 or t.raw[:1].isupper()) and t.norm not in VAGUE and t.norm.isalpha()
        for t in tokens
    )


def all_forms(golds: Iterable[str], question: str) -> tuple[str, ...]:
    """Every gold answer as written, then every derived form, without repetition."""
    written = list(golds)
    asked = asked_by(question)
    more = [form for gold in written[:MOST] for form in derived(gold, asked)]
    return tuple(dict.fromkeys([*written, *more]))
