"""Gold answers that are phrases: found where a sentence says all their words in its own order.

"Fireworks displays are held" is said by "the first public display of fireworks was
held". Words that the question already says need not be repeated. Only for free rows: the accepted
answers of a written probe are terms, of which each word counts in its place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from harness.grading.aliases import Span, same_word
from harness.grading.normalise import Token, singular, word_set
from harness.grading.numbers import words_of

_EMPTY = word_set(
    """a an the of in on at to for from by with and or is are was were be been being do does did has
    have had it its it's this that these those he she they his her their them as than then so very
    also more most some any all which who whose what when where why how not no into about between
    can could will would may might one's s there being over under up down out off"""
)
_SUFFIXES = (
    "ational", "ation", "ional", "ally", "ical", "ian", "ese", "ish", "ion", "ism", "ist", "ous",
    "ing", "ate", "al", "an", "ic", "ly", "ed", "er", "or", "e", "n", "y",
)  # fmt: skip
_NAME = re.compile(r"[A-Z][\w.'-]*(?: [A-Z][\w.'-]*){1,2}")
_SHORTEST_ROOT = 4
_WIDEST = 30
"""Tokens over which the words of one phrase may be spread."""


def related(word: str, other: str) -> bool:
    """True where two normalised words come from one root: pictographs, pictographic; India, Indian.

    Both must be the root with a known ending, so that Niger is not Nigeria.
    """
    if word == other or min(len(word), len(other)) < _SHORTEST_ROOT or word[:4] != other[:4]:
        return word == other
    return not _roots(word).isdisjoint(_roots(other))


@lru_cache(maxsize=16384)
def _roots(word: str) -> frozenset[str]:
    word = singular(word)
    cut = {word.removesuffix(ending) for ending in _SUFFIXES if word.isalpha()}
    return frozenset(root for root in {word, *cut} if len(root) >= _SHORTEST_ROOT)


class Phrase(NamedTuple):
    """A gold answer as the words that must be said."""

    text: str
    words: tuple[Token, ...]


def phrases(golds: Sequence[str], question: frozenset[str]) -> tuple[Phrase, ...]:
    """The golds that can be covered. `question` holds the stems of the question's words.

    A gold is left out where fewer than two of its words are new to the question: one word alone
    would be found anywhere.
    """
    result = []
    for gold in golds:
        if _NAME.fullmatch(gold):
            continue  # "John Smith and Henry Adams" does not say "John Adams"
        words = [t for t in words_of(gold) if t.norm[0].isalnum() and t.norm not in _EMPTY]
        new = {t.stem: t for t in words if t.stem not in question}
        if len(words) >= 2 and len(new) >= 2:
            result.append(Phrase(gold, tuple(new.values())))
    return tuple(result)


def find_covered(
    tokens: Sequence[Token], keep: Sequence[int], wanted: Sequence[Phrase]
) -> list[Span]:
    """Phrases of which every word is in the sentence. `keep` is `aliases.content_indices`."""
    spans = []
    for phrase in wanted:
        found = [i for w in phrase.words if (i := _place(tokens, keep, w)) is not None]
        if len(found) == len(phrase.words) and max(found) - min(found) <= _WIDEST:
            spans.append(Span(phrase.text, min(found), max(found)))
    return spans


def _place(tokens: Sequence[Token], keep: Sequence[int], word: Token) -> int | None:
    exact = next(
        (i for i in keep if tokens[i].stem == word.stem and same_word(tokens[i], word)), None
    )
    if exact is not None or not word.norm.isalpha():
        return exact
    return next((i for i in keep if related(tokens[i].norm, word.norm)), None)
