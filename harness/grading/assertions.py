"""What a sentence does with an answer it mentions: asserts, denies, or merely lists it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from harness.grading.normalise import Token, word_set

_SETTING_ASIDE = frozenset(
    {
        ("rather", "than"), ("instead", "of"), ("other", "than"), ("opposed", "to"),
        ("different", "from"), ("apart", "from"), ("contrast", "to"), ("compared", "to"),
        ("confused", "with"), ("mistaken", "for"), ("contrary", "to"),
    }
)  # fmt: skip
_UNLIKE = frozenset({"unlike", "except", "excluding", "versus", "neither", "nor"})
_STOPS = frozenset({";", ":", ".", "—", "(", ")", "!", "?", '"'})
_CLAUSE_WORDS = word_set(
    "but it it's its this that's they which because however he she you so since until"
)
_SEGMENT_ENDS = frozenset(
    {",", ";", ":", "—", "(", ")", "and", "but", "while", "whereas", "which", "because", "though"}
)
_SUBORDINATE = frozenset({"while", "whereas", "although", "though", "unlike"})
_LIST_WORDS = word_set(
    "or and / , & a an the either even possibly perhaps maybe also both of in as well by"
)
_HEDGES = word_set(
    "either could might may possibly perhaps maybe options candidates choices several"
)
_AUXILIARIES = word_set("do does did can could will would has have had")
_AUXILIARY_DENIALS = word_set(
    "don't doesn't didn't can't cannot couldn't won't wouldn't hasn't haven't hadn't"
)
_COPULAS = frozenset({"is", "are", "was", "were"})
_COPULA_DENIALS = frozenset({"isn't", "aren't", "wasn't", "weren't"})
_AFTER_DENIAL = word_set("correct right true responsible involved the a an what which that it")
_REJECTED = frozenset({"wrong", "incorrect", "false"})
_SUPPOSING = word_set("referring mean meant asking talking looking thinking")
_BUT = word_set("but however actually although in")
_OTHERS = word_set("many some most people person others they")
_FALSELY = word_set("often commonly sometimes widely mistakenly wrongly popularly frequently")
_BELIEVE = word_set("think thought believ belief assum suppos claim consider say said")
_YOU = frozenset({"you", "you're", "your"})
_LOOK_BACK = 10
_LOOK_AHEAD = 6

_OPPOSITES: dict[str, frozenset[str]] = {}
for _a, _b in (
    ("lower", "rais"), ("lower", "increas"), ("lower", "elevat"), ("decreas", "increas"),
    ("decreas", "rais"), ("reduc", "increas"), ("reduc", "rais"), ("slow", "accelerat"),
    ("constrict", "dilat"), ("inhibit", "stimulat"), ("relax", "contract"),
):  # fmt: skip
    _OPPOSITES[_a] = _OPPOSITES.get(_a, frozenset()) | {_b}
    _OPPOSITES[_b] = _OPPOSITES.get(_b, frozenset()) | {_a}


class Mention(NamedTuple):
    """A span of tokens that names the gold answer or a rival."""

    gold: bool
    label: str
    """The alias or distractor, or the number as written."""
    first: int
    last: int


class Judged(NamedTuple):
    """A mention with what the sentence does with it."""

    mention: Mention
    denied: bool
    """Negated, set aside ("rather than X"), or said to do the opposite of what was asked."""
    listed: bool
    """One of several options the sentence leaves open."""
    overlap: int
    """How many of the question's words stand in the same part of the sentence."""
    distance: int
    """Tokens to the nearest of them; 999 where there is none."""


def judge(
    tokens: Sequence[Token], mentions: Sequence[Mention], question: frozenset[str]
) -> list[Judged]:
    """The mentions of one sentence, in order. `question` holds the stems of the prompt's words."""
    ordered = sorted(mentions, key=lambda m: m.first)
    denied = [_denied(tokens, m, question) for m in ordered]
    _set_aside_subordinate(tokens, ordered, denied)
    open_lists = _listed(tokens, ordered, denied)
    result = []
    for mention, is_denied, is_listed in zip(ordered, denied, open_lists, strict=True):
        overlap, distance = _closeness(tokens, mention, question)
        result.append(Judged(mention, is_denied, is_listed, overlap, distance))
    return result


def _denied(tokens: Sequence[Token], mention: Mention, question: frozenset[str]) -> bool:
    return (
        _negated_before(tokens, mention, question)
        or _negated_after(tokens, mention, question)
        or _opposite(tokens, mention, question)
        or _only_supposed(tokens, mention)
        or _only_thought(tokens, mention)
    )


def _only_thought(tokens: Sequence[Token], mention: Mention) -> bool:
    """True for "many people think it is X, but": what others believe and the answer does not."""
    after = [t.norm for t in tokens[mention.last + 1 : mention.last + 2 * _LOOK_AHEAD]]
    if not any(a in _STOPS | {","} and b in _BUT for a, b in pairwise(after)):
        return False
    before = tokens[max(0, mention.first - _LOOK_BACK) : mention.first]
    return any(
        (a.norm in _OTHERS or a.norm in _FALSELY) and b.stem in _BELIEVE
        for i, a in enumerate(before)
        for b in before[i + 1 : i + 3]
    )


def _only_supposed(tokens: Sequence[Token], mention: Mention) -> bool:
    """True for "if you are referring to X": the answer asks back and says nothing of X."""
    before = [t.norm for t in tokens[max(0, mention.first - _LOOK_BACK) : mention.first]]
    for i in range(len(before) - 1, -1, -1):
        if before[i] in _SEGMENT_ENDS:
            return False
        if before[i] == "if":
            rest = frozenset(before[i:])
            return bool(rest & _YOU) and bool(rest & _SUPPOSING)
    return False


def _negated_before(tokens: Sequence[Token], mention: Mention, question: frozenset[str]) -> bool:
    first = mention.first
    for i in range(first - 1, max(-1, first - 1 - _LOOK_BACK), -1):
        word = tokens[i].norm
        if word in _UNLIKE or (i and (tokens[i - 1].norm, word) in _SETTING_ASIDE):
            return True
        if word in _STOPS or word in _CLAUSE_WORDS:
            return False
        if word == "," and not _list_goes_on(tokens, i, mention.last):
            return False
        if word in {"not", "never"} or word.endswith("n't") or word == "cannot":
            following = tokens[i + 1].norm
            if following in {"only", "just", "merely", "simply"}:
                return False
            governs_verb = word in _AUXILIARY_DENIALS or (
                i > 0 and tokens[i - 1].norm in _AUXILIARIES
            )
            # "does not produce insulin" may be the very answer (what is lacking in diabetes?);
            # it is a denial only of the verb that was asked about.
            return not governs_verb or tokens[i + 1].stem in question
    return False


def _list_goes_on(tokens: Sequence[Token], comma: int, last: int) -> bool:
    return any(t.norm in {"or", "nor"} for t in tokens[comma + 1 : last + 5])


def _negated_after(tokens: Sequence[Token], mention: Mention, question: frozenset[str]) -> bool:
    after = tokens[mention.last + 1 : mention.last + 5]
    if not after:
        return False
    words = [t.norm for t in after]
    if words[0] in _COPULAS and len(words) > 1 and words[1] in _REJECTED:
        return True
    if words[0] in _COPULA_DENIALS:
        rest = after[1:]
    elif words[0] in _COPULAS and words[1:2] == ["not"]:
        rest = after[2:]
    elif words[0] in _AUXILIARY_DENIALS:
        return len(after) > 1 and after[1].stem in question
    elif words[0] in _AUXILIARIES and words[1:2] == ["not"]:
        return len(after) > 2 and after[2].stem in question
    else:
        return False
    return not rest or rest[0].norm in _AFTER_DENIAL or rest[0].stem in question


def _opposite(tokens: Sequence[Token], mention: Mention, question: frozenset[str]) -> bool:
    """True for "insulin raises blood sugar" where the question asks what lowers it."""
    contrary = {o for s in question if s in _OPPOSITES for o in _OPPOSITES[s]} - question
    if not contrary:
        return False
    for token in tokens[mention.last + 1 : mention.last + 1 + _LOOK_AHEAD]:
        if (
            token.norm in _SEGMENT_ENDS
            or token.norm in _STOPS
            or token.stem in question & set(_OPPOSITES)
        ):
            break
        if token.stem in contrary and not token.norm.endswith(("ed", "ing")):
            return True
    before = tokens[max(0, mention.first - 2 * _LOOK_AHEAD) : mention.first]
    # "is raised by insulin", "the hormone that raises blood sugar is insulin"
    return any(
        (a.stem in contrary and a.norm.endswith("ed") and b.norm == "by")
        or (a.norm == "that" and b.stem in contrary and not _segment_ends(before, b))
        for a, b in pairwise(before)
    )


def _segment_ends(before: Sequence[Token], token: Token) -> bool:
    return any(t.start > token.start and t.norm in _SEGMENT_ENDS for t in before)


def _set_aside_subordinate(
    tokens: Sequence[Token], ordered: Sequence[Mention], denied: list[bool]
) -> None:
    """Drops the background: what stands before the comma in "while X raises it, Y lowers it"."""
    if not tokens or tokens[0].norm not in _SUBORDINATE:
        return
    comma = next((i for i, t in enumerate(tokens) if t.norm == ","), None)
    if comma is None or not any(m.first > comma for m in ordered):
        return
    for i, mention in enumerate(ordered):
        if mention.last < comma:
            denied[i] = True


def _listed(
    tokens: Sequence[Token], ordered: Sequence[Mention], denied: Sequence[bool]
) -> list[bool]:
    """Which mentions stand in a list of options together with one of the other kind."""
    listed = [False] * len(ordered)
    group: list[int] = []
    for i in range(len(ordered)):
        if denied[i]:
            continue
        if group and not _coordinated(tokens, ordered[group[-1]], ordered[i]):
            _close_group(ordered, group, listed)
            group = []
        group.append(i)
    _close_group(ordered, group, listed)
    for i, mention in enumerate(ordered):
        listed[i] = listed[i] or _open_alternative(tokens, mention, ordered)
    return listed


def _close_group(ordered: Sequence[Mention], group: list[int], listed: list[bool]) -> None:
    if len({ordered[i].gold for i in group}) == 2:
        for i in group:
            listed[i] = True


def _coordinated(tokens: Sequence[Token], a: Mention, b: Mention) -> bool:
    gap = tokens[a.last + 1 : b.first]
    return len(gap) <= 6 and all(t.norm in _LIST_WORDS for t in gap)


def _open_alternative(
    tokens: Sequence[Token], mention: Mention, ordered: Sequence[Mention]
) -> bool:
    """True for "it could be X or <something nobody listed>"."""
    if not any(t.norm in _HEDGES for t in tokens[max(0, mention.first - 10) : mention.first]):
        return False
    for place in (
        *range(mention.first - 4, mention.first),
        *range(mention.last + 1, mention.last + 6),
    ):
        if 0 <= place < len(tokens) - 1 and tokens[place].norm == "or":
            return not any(
                m.gold and m is not mention and abs(m.first - place) <= 4 for m in ordered
            )
    return False


def _closeness(
    tokens: Sequence[Token], mention: Mention, question: frozenset[str]
) -> tuple[int, int]:
    start, end = mention.first, mention.last
    while start > 0 and tokens[start - 1].norm not in _SEGMENT_ENDS:
        start -= 1
    while end + 1 < len(tokens) and tokens[end + 1].norm not in _SEGMENT_ENDS:
        end += 1
    found: set[str] = set()
    distance = 999
    for i in range(start, end + 1):
        if mention.first <= i <= mention.last or tokens[i].stem not in question:
            continue
        found.add(tokens[i].stem)
        distance = min(distance, mention.first - i if i < mention.first else i - mention.last)
    return len(found), distance
