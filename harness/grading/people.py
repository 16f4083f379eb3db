"""How people's names are shortened: middle names, initials, nicknames, titles, a surname alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from harness.grading.normalise import Token, clean, word_set
from harness.grading.numbers import words_of

TITLES = word_set(
    "sir dr dr. mr mr. mrs mrs. ms ms. lord lady dame king queen prince princess president "
    "captain colonel general major sergeant saint st st. pope emperor professor master dominican "
    "senator governor chancellor reverend rev."
)
_SUFFIXES = word_set("jr jr. sr sr. ii iii iv v vi vii viii mbe obe cbe kbe phd md esq")
_PARTICLES = word_set("van von de der den la le el da di del dos du bin ibn al y of the and")
NAMESAKES = frozenset({("john", "adams"), ("george", "bush")})
"""Two people who differ by their middle names alone."""
_SHORTEST = 4
"""Letters that a first or last name must have to stand for the person."""
_GROUPS = (
        "patrick pat",
        "patricia pat patty",
        "james jim jimmy jamie",
        "robert rob bob bobby bobbie robbie",
        "william will bill billy willie",
        "richard rick dick rich ricky",
        "michael mike mick mickey",
        "thomas tom tommy",
        "joseph joe joey",
        "john jon johnny jack",
        "charles charlie chuck",
        "edward ed eddie ted",
        "daniel dan danny",
        "david dave",
        "steven stephen steve",
        "christopher chris",
        "matthew matt",
        "anthony tony",
        "benjamin ben benny",
        "samuel sam sammy",
        "alexander alex",
        "nicholas nick",
        "timothy tim",
        "gregory greg",
        "kenneth ken kenny",
        "ronald ron ronnie",
        "donald don donnie",
        "lawrence laurence larry",
        "andrew andy drew",
        "jeffrey jeff",
        "frederick fred freddie",
        "theodore ted teddy",
        "elizabeth liz beth betty",
        "katherine catherine kathryn kate kathy cathy katie",
        "margaret maggie peggy meg",
        "susan sue susie",
        "jennifer jen jenny",
        "rebecca becky",
        "deborah debbie",
        "barbara barb",
        "victoria vicky",
        "jacqueline jackie",
        "philip phil",
        "raymond ray",
        "peter pete",
        "douglas doug",
        "leonard len lenny leo",
        "albert al bert",
        "harold harry hal",
        "henry harry hank",
        "francis frank",
        "franklin frank",
        "zachary zach",
        "joshua josh",
        "nathaniel nate nathan",
        "vincent vince",
        "walter walt",
        "eugene gene",
        "gerald gerry jerry",
        "jerome jerry",
        "louis lou",
        "martin marty",
        "maxwell max",
        "oliver ollie",
        "cynthia cindy",
        "cyndi cindy",
        "sandra sandy",
        "stephanie steph",
        "alfred alf fred",
        "abraham abe",
        "arthur art",
        "cassandra cass",
        "dorothy dot dottie",
        "florence flo",
        "isabella bella",
        "jessica jess",
        "judith judy",
        "pamela pam",
        "suzanne sue",
        "teresa terry",
)  # fmt: skip
_NICKNAMES = tuple(word_set(group) for group in _GROUPS)


def name_forms(form: str) -> Iterator[str]:
    """The name without its title, its suffix or its middle names, or with their initials."""
    words = form.split()
    if len(words) < 3:
        return
    if words[0].casefold() in TITLES and words[1].casefold() not in _PARTICLES:
        yield " ".join(words[1:])
        return
    if words[-1].casefold() in _SUFFIXES:
        yield " ".join(words[:-1]).rstrip(",")
        return
    small = [w.casefold() for w in words]
    if not _is_name(words) or len(words) > 5 or not _PARTICLES.isdisjoint(small):
        return
    first, last = words[0], words[-1]
    if (small[0], small[-1]) not in NAMESAKES:
        yield f"{first} {last}"
    if len(words) == 3:
        yield f"{first} {words[1][0]} {last}"
    else:
        yield f"{first} {words[1]} {last}"


def nicknames(form: str) -> Iterator[str]:
    """The name with the other forms of its first name: "Pat Malone" for "Patrick Malone"."""
    words = form.split()
    if not 2 <= len(words) <= 4 or not _is_name(words) or words[-1].casefold() in _SUFFIXES:
        return
    for group in _NICKNAMES:
        if words[0].casefold() in group:
            yield from (" ".join([short.capitalize(), *words[1:]]) for short in sorted(group))


def partners(form: str) -> Iterator[str]:
    """Each of two people who did something together, where both are named in full."""
    parts = [part.split() for part in form.split(" and ")]
    if len(parts) == 2 and all(2 <= len(p) <= 4 and _is_name(p) for p in parts):
        yield from (" ".join(p) for p in parts)


def short_names(golds: Iterable[str], question: str, vague: frozenset[str]) -> tuple[str, ...]:
    """First and last words that stand for a name where they are the whole answer: "Nightingale".

    A name with one of the `vague` words has none: "Korea" alone is not "North Korea".
    """
    ends = (end for words in _proper(golds, vague) for end in (words[0], words[-1]))
    return tuple(dict.fromkeys(e for e in ends if _stands_alone(e, question)))


def surnames(golds: Iterable[str], question: str, vague: frozenset[str]) -> tuple[str, ...]:
    """Last words of names, where the question asks who: "Shakespeare"."""
    if not _WHO.search(question):
        return ()
    lasts = (words[-1] for words in _proper(golds, vague))
    return tuple(dict.fromkeys(last for last in lasts if _stands_alone(last, question)))


_WHO = re.compile(r"\b(?:who|whom|whose)\b", re.IGNORECASE)


def find_alone(tokens: Sequence[Token], names: frozenset[str]) -> list[int]:
    """Tokens that are one of `names` and no part of a longer name: not the Post of "Emily Post"."""
    return [
        i
        for i, token in enumerate(tokens)
        if token.norm in names
        and token.raw[:1].isupper()
        and not _goes_on(tokens, i + 1)
        and not _named_before(tokens, i - 1)
    ]


def _goes_on(tokens: Sequence[Token], i: int) -> bool:
    return i < len(tokens) and (tokens[i].raw[:1].isupper() or tokens[i].norm == "of")


def _named_before(tokens: Sequence[Token], i: int) -> bool:
    if i > 0 and tokens[i].raw == ".":  # an initial, or "Mr."
        i -= 1
    return i >= 0 and tokens[i].raw[:1].isupper() and tokens[i].norm not in TITLES


def _proper(golds: Iterable[str], vague: frozenset[str]) -> Iterator[list[str]]:
    for gold in golds:
        words = [w.strip(" ,.") for w in clean(gold).split()]
        small = {w.casefold() for w in words}
        if 2 <= len(words) <= 4 and _is_name(words) and vague.isdisjoint(small):
            yield words


def _stands_alone(word: str, question: str) -> bool:
    tokens = words_of(word)
    asked = {t.stem for t in words_of(question)}
    new = len(tokens) == 1 and tokens[0].stem not in asked
    return len(word) >= _SHORTEST and new and word.casefold() not in TITLES | _SUFFIXES


def _is_name(words: list[str]) -> bool:
    return all(
        w.casefold() in _PARTICLES
        or (w[:1].isupper() and w.replace("'", "").replace("-", "").rstrip(".,").isalpha())
        for w in words
    )
