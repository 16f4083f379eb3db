"""Finding accepted answers and distractors in a sentence.

Three ways, each tried only where the one before found nothing: the alias as a run of words (any
inflection); its words in another order, close together ("deficiency of vitamin C"); the alias with
a spelling mistake (never for strict probes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from rapidfuzz.distance import OSA
from rapidfuzz.fuzz import ratio

from harness.grading.language import ENGLISH, accented_spelling
from harness.grading.normalise import Token, is_article, stem, word_set
from harness.grading.numbers import words_of

FUZZY_RATIO = 88.0
"""rapidfuzz ratio from which a long word counts as a spelling mistake of another."""
FUZZY_LETTERS = 7
"""Shorter words are never matched fuzzily."""

_LINKS = word_set("a an the of and in to for at by s or")
_PREFIXES = (
    "hyper", "hypo", "inter", "intra", "ante", "anti", "macro", "micro", "endo", "exo", "ecto",
    "ab", "ad", "pre", "pro", "per", "mono", "poly", "iso", "ortho", "tachy", "brady", "in", "un",
    "non", "extra", "infra", "supra", "sub", "super",
)  # fmt: skip
_SUFFIXES = (
    "ase", "ose", "ate", "ite", "ide", "ane", "ene", "yne", "ine", "ole", "itis", "osis", "oma",
    "emia", "uria", "penia", "cytosis", "ic", "ous", "al", "ol", "gen", "gon", "iole", "ule", "ery",
)  # fmt: skip
_REAL_WORDS = word_set(
    "inulin glycogen thymine calcitonin calcitriol arteriole urethra ileum ilium peroneal perineal "
    "prostrate mucous thymosin ketamine lecithin globin myoglobin collagenase"
)
"""Words one or two letters away from common answers that are no misspellings of them."""
_OTHER_PLACES = {
    "new": word_set("mexico york jersey england guinea hampshire zealand orleans brunswick"),
    "south": word_set("america africa sudan"), "north": word_set("america macedonia"),
    "latin": word_set("america"), "central": word_set("america"), "west": word_set("virginia"),
    "northern": word_set("ireland"), "equatorial": word_set("guinea"), "east": word_set("timor"),
}  # fmt: skip
"""First word → second words with which it names another place than the second alone."""
_COGNATE_ENDINGS = frozenset({"e", "a", "o", "i", "en", "es", "as", "os"})

LIST_REACH = 30
"""Tokens over which the parts of a list may be spread: "Riga (Latvia), Vilnius (…) and …"."""
_LIST = re.compile(r"\w, .+\band\b")
_QUALIFIED = re.compile(r"([A-Z][\w.'-]+(?: [A-Z][\w.'-]+)*), (?!.*\b(?:and|or)\b)[A-Z][\w.' -]*")


class Alias(NamedTuple):
    """One written form of an answer, ready to be looked for."""

    text: str
    words: tuple[Token, ...]
    """Without articles and punctuation."""

    @property
    def norms(self) -> tuple[str, ...]:
        """The normalised words."""
        return tuple(w.norm for w in self.words)

    @property
    def plain_number(self) -> bool:
        """True where a number (no pair such as 120/80) is part of the alias."""
        return any(w.norm.replace(".", "").isdecimal() for w in self.words)


class Span(NamedTuple):
    """Where an alias was found: token indices, `last` included."""

    alias: str
    first: int
    last: int
    fuzzy: bool = False


def compile_aliases(texts: Iterable[str], *, strict: bool) -> tuple[Alias, ...]:
    """Aliases longest first, with the shorter forms people use.

    A closing parenthesis may be left out and, unless `strict`, so may what follows the comma of a
    place or name in capitals ("British Columbia, Canada").
    """
    found: dict[tuple[str, ...], Alias] = {}
    for text in texts:
        forms = [text, re.sub(r"\s*\([^()]*\)\s*$", "", text)]
        head = _QUALIFIED.fullmatch(text)
        if head and not strict:
            forms.append(head.group(1))
        for form in dict.fromkeys(forms):
            words = tuple(content(words_of(form)))
            if words:
                alias = Alias(form, words)
                found.setdefault(alias.norms, alias)
    return tuple(sorted(found.values(), key=lambda a: (-len(a.words), -len(a.text), a.text)))


def content(tokens: list[Token]) -> list[Token]:
    """Words and numbers without articles; the percent sign counts as a word."""
    return [tokens[i] for i in content_indices(tokens)]


def content_indices(tokens: list[Token]) -> list[int]:
    """Indices of the tokens that `content` keeps."""
    return [
        i
        for i, token in enumerate(tokens)
        if (token.norm[0].isalnum() or token.norm == "%") and not is_article(tokens, i)
    ]


def same_word(word: Token, alias: Token) -> bool:
    """True where two words differ in inflection or spelling convention only."""
    if word.norm == alias.norm:
        return not accented_spelling(word.raw, alias.raw)
    if word.stem != alias.stem or accented_spelling(word.raw, alias.raw):
        return False
    return not _cognate(word.norm, alias.norm)


def find_runs(tokens: list[Token], keep: Sequence[int], aliases: Sequence[Alias]) -> list[Span]:
    """Aliases that occur as a run of words. `keep` is `content_indices(tokens)`."""
    places: dict[str, list[int]] = {}
    for position, index in enumerate(keep):
        places.setdefault(tokens[index].stem, []).append(position)
    spans = []
    for alias in aliases:
        size = len(alias.words)
        for position in places.get(alias.words[0].stem, ()):
            if position + size > len(keep):
                continue
            if size == 1 and _another_word(tokens, keep[position], alias.words[0]):
                continue
            chosen = keep[position : position + size]
            if all(same_word(tokens[i], w) for i, w in zip(chosen, alias.words, strict=True)):
                spans.append(Span(alias.text, chosen[0], chosen[-1]))
        if size > 1 and not any(map(_is_letter, alias.words)):
            # "thymus gland" in one word; but "Vitamin E" in one is the stem of any vitamin.
            joined = places.get(stem("".join(w.norm for w in alias.words)), ())
            spans += [
                Span(alias.text, keep[p], keep[p])
                for p in joined
                if not (tokens[keep[p]].raw.islower() and tokens[keep[p]].norm in ENGLISH)
            ]
    return spans


def _is_letter(word: Token) -> bool:
    return len(word.norm) == 1 and word.norm.isalpha()


def _another_word(tokens: Sequence[Token], i: int, alias: Token) -> bool:
    """True where a word only looks like the alias: "us" like US, "New Mexico" like Mexico."""
    word = tokens[i]
    if alias.raw.isupper() and word.raw.islower() and len(alias.raw) <= 4:
        return word.norm in ENGLISH and len(tokens) > 2
    return i > 0 and word.norm in _OTHER_PLACES.get(tokens[i - 1].norm, ())


def find_scattered(
    tokens: list[Token], keep: Sequence[int], aliases: Sequence[Alias], prompt: Sequence[str]
) -> list[Span]:
    """Aliases of two or more words whose words all stand near each other, in any order.

    Where the question itself contains one of them, nothing but link words may come between:
    "causes tuberculosis: Mycobacterium bovis" does not say "Mycobacterium tuberculosis".
    """
    present = {tokens[i].stem for i in keep}
    spans = []
    for alias in aliases:
        wanted = [w for w in alias.words if w.norm not in _LINKS]
        if len(wanted) < 2 or not all(w.stem in present for w in wanted):
            continue
        chosen = [
            [i for i in keep if tokens[i].stem == w.stem and same_word(tokens[i], w)]
            for w in wanted
        ]
        if not all(chosen):
            continue
        anchor = chosen[0][0]
        nearest = [min(options, key=lambda i: abs(i - anchor)) for options in chosen]
        if not all(
            nearest[i] == nearest[i - 1] + 1 for i, w in enumerate(wanted) if i and _is_letter(w)
        ):
            continue  # a letter belongs to the word before it: "type 2, I think" is no "type I"
        first, last = min(nearest), max(nearest)
        if len(set(nearest)) < len(wanted) or last - first > _reach(alias, len(wanted)):
            continue
        between = (t.norm for i, t in enumerate(tokens[first:last], first) if i not in nearest)
        echoes = any(w.norm in prompt for w in wanted)
        if not echoes or all(word in _LINKS for word in between):
            spans.append(Span(alias.text, first, last))
    return spans


def _reach(alias: Alias, words: int) -> int:
    """Tokens over which the words may be spread: a list may name what belongs to each."""
    return LIST_REACH if _LIST.search(alias.text) else words + 5


def find_misspelt(
    tokens: list[Token],
    keep: Sequence[int],
    aliases: Sequence[Alias],
    rivals: frozenset[str],
) -> list[Span]:
    """Aliases with spelling mistakes in their long words.

    `rivals` are the normalised words of the distractors: a word that is one of them, or is nearer
    to one than to the alias, is no misspelling of the alias.
    """
    spans = []
    for alias in aliases:
        if not any(len(w.norm) >= FUZZY_LETTERS and w.norm.isalpha() for w in alias.words):
            continue
        size = len(alias.words)
        for position in range(len(keep) - size + 1):
            pairs = list(zip(keep[position : position + size], alias.words, strict=True))
            wrong = [(i, w) for i, w in pairs if not same_word(tokens[i], w)]
            if wrong and all(_misspelt(tokens[i], w, rivals) for i, w in wrong):
                chosen = keep[position : position + size]
                spans.append(Span(alias.text, chosen[0], chosen[-1], fuzzy=True))
    return spans


def find_misspelt_names(
    tokens: list[Token], keep: Sequence[int], aliases: Sequence[Alias]
) -> list[Span]:
    """Names of two or more words, one of them misspelt by a letter or by ear: "Cindy Falk"."""
    spans = []
    for alias in aliases:
        size = len(alias.words)
        if size < 2 or not all(w.norm.isalpha() for w in alias.words):
            continue
        for position in range(len(keep) - size + 1):
            pairs = [
                (tokens[i], w)
                for i, w in zip(keep[position : position + size], alias.words, strict=True)
            ]
            wrong = [(ours, gold) for ours, gold in pairs if ours.norm != gold.norm]
            sure = sum(len(gold.norm) for ours, gold in pairs if ours.norm == gold.norm)
            if len(wrong) == 1 and _same_name(*wrong[0], sure=sure):
                spans.append(Span(alias.text, keep[position], keep[position + size - 1], True))
    return spans


def _same_name(word: Token, alias: Token, *, sure: int) -> bool:
    ours, gold = word.norm, alias.norm
    capitals = word.raw[:1].isupper() and alias.raw[:1].isupper()
    if not capitals or min(len(ours), len(gold)) < 4 or not ours.isalpha():
        return False
    # A plural is another word, not a slip: "the Red Hat" is not "the Red Hats".
    if ours + "s" == gold or gold + "s" == ours:
        return False
    slip = sure >= 4 and min(len(ours), len(gold)) >= 5 and OSA.distance(ours, gold) == 1
    return slip or _sound(ours) == _sound(gold)


_SOUNDS = (
    ("ph", "f"), ("ck", "k"), ("x", "ks"), ("c", "k"), ("q", "k"), ("y", "i"), ("z", "s"),
    ("ie", "i"), ("ee", "i"), ("ea", "i"), ("th", "t"), ("dh", "d"), ("gh", "g"),
)  # fmt: skip


@lru_cache(maxsize=4096)
def _sound(word: str) -> str:
    """A name as it sounds, roughly: "trex" and "treks" alike."""
    for written, spoken in _SOUNDS:
        word = word.replace(written, spoken)
    return re.sub(r"(.)\1", r"\1", word).removesuffix("e")


def _misspelt(word: Token, alias: Token, rivals: frozenset[str]) -> bool:
    ours, gold = word.norm, alias.norm
    if min(len(ours), len(gold)) < FUZZY_LETTERS - 1 or len(gold) < FUZZY_LETTERS:
        return False
    if ours[0] != gold[0] or ours in rivals | _REAL_WORDS or not word.raw.isascii():
        return False
    return _close(ours, gold) and all(
        ratio(ours, rival) < ratio(ours, gold) for rival in rivals if rival[0] == ours[0]
    )


@lru_cache(maxsize=65536)
def _close(ours: str, gold: str) -> bool:
    """True where `ours` reads as a typing mistake of `gold` and not as another real word."""
    if abs(len(ours) - len(gold)) > 2 or not (ours.isalpha() and gold.isalpha()):
        return False
    if ratio(ours, gold) < FUZZY_RATIO and OSA.distance(ours, gold) > 1:
        return False
    return not (_cognate(ours, gold) or _affixes_differ(ours, gold))


def _cognate(ours: str, gold: str) -> bool:
    """True where the words differ only in an ending as other languages have it (insulina)."""
    shared = 0
    for a, b in zip(ours, gold, strict=False):
        if a != b:
            break
        shared += 1
    if shared < len(gold) - 1 or shared < 4:
        return False
    ending = ours[shared:]
    return ending in _COGNATE_ENDINGS and ending not in {"es"} and ending != gold[shared:] + "s"


def _affixes_differ(ours: str, gold: str) -> bool:
    """True where prefix or suffix make two terms of one stem: hyper-/hypo-, -ase/-ose."""

    def longest(word: str, options: tuple[str, ...], *, end: bool) -> str:
        fits = [o for o in options if (word.endswith(o) if end else word.startswith(o))]
        return max(fits, key=len, default="")

    prefixes = longest(ours, _PREFIXES, end=False), longest(gold, _PREFIXES, end=False)
    suffixes = longest(ours, _SUFFIXES, end=True), longest(gold, _SUFFIXES, end=True)
    return (all(prefixes) and prefixes[0] != prefixes[1]) or (
        all(suffixes) and suffixes[0] != suffixes[1]
    )
