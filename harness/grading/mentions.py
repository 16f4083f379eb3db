"""What a response says about the answer: its statements, and the mentions in each of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from harness.grading import aliases, coverage, dates, degenerate, numbers, people, units
from harness.grading.assertions import Judged, Mention, judge
from harness.grading.dates import Agreement
from harness.grading.key import Key
from harness.grading.normalise import Token, clean, sentences, tokenise, word_set
from harness.grading.refusals import without_refusals

_PROMPT_LABEL = re.compile(r"^(?:the )?(?:question|q|prompt|you asked)\b[^:]{0,20}:", re.IGNORECASE)
_LIST_NUMBER = re.compile(r"^\s*\(?\d{1,2}[.)]\s+")
_LABELLED = word_set("type stage factor vitamin grade chapter figure class group step table")
_MONTHS = word_set(
    "january february march april may june july august september october november december"
)
_ECHO_RUN = 4
"""Words beyond the answer that must be copied from the question for the answer to be an echo."""


class Found(NamedTuple):
    """One sentence with what it says about the answer."""

    text: str
    tokens: list[Token]
    judged: list[Judged]


def statements(key: Key, cleaned: str) -> tuple[list[str], bool]:
    """(sentences that state something, whether a refusal was dropped)."""
    kept: list[str] = []
    refused = False
    parts = sentences(cleaned)
    for part in parts:
        if _PROMPT_LABEL.match(part) or (part.endswith("?") and len(parts) > 1):
            continue
        sentence, dropped = without_refusals(
            _LIST_NUMBER.sub("", part), keep_referrals=key.keep_referrals
        )
        refused = refused or dropped
        sentence = _without_echo(key, sentence)
        if not degenerate.is_blank(sentence):
            kept.append(sentence)
    return kept, refused


def _without_echo(key: Key, sentence: str) -> str:
    """The sentence without the prompt repeated word by word at its start."""
    size = len(key.prompt)
    if size < _ECHO_RUN:
        return sentence
    words = [t for t in numbers.words_of(sentence) if t.norm[0].isalnum()]
    if tuple(t.norm for t in words[:size]) != key.prompt:
        return sentence
    return clean(sentence)[words[size - 1].end :].lstrip(" ?:.-")


def mentions_in(key: Key, kept: Sequence[str]) -> list[Found]:
    """All sentences with their judged mentions; looser matching only where the exact found none."""
    rows: list[tuple[str, list[Token], list[int], list[Mention]]] = []
    for sentence in kept:
        prepared = units.prepare(sentence)
        tokens = numbers.merge_numbers(tokenise(prepared))
        keep = aliases.content_indices(tokens)
        mentions = _exact(key, tokens, keep)
        if key.targets:
            mentions += _numeric(key, prepared, tokens)
        if key.dates:
            mentions += _dated(key, prepared, tokens)
        rows.append((sentence, tokens, keep, mentions))
    if not any(m.gold for row in rows for m in row[3]):
        for _, tokens, keep, mentions in rows:
            mentions += _loose(key, tokens, keep)
    return [
        Found(sentence, tokens, judge(tokens, _resolve(key, tokens, mentions), key.question))
        for sentence, tokens, _, mentions in rows
    ]


def _exact(key: Key, tokens: list[Token], keep: Sequence[int]) -> list[Mention]:
    gold = aliases.find_runs(tokens, keep, key.gold)
    rivals = aliases.find_runs(tokens, keep, key.rivals)
    return [Mention(True, s.alias, s.first, s.last) for s in gold] + [
        Mention(False, s.alias, s.first, s.last) for s in rivals
    ]


def _loose(key: Key, tokens: list[Token], keep: Sequence[int]) -> list[Mention]:
    spans = aliases.find_scattered(tokens, keep, key.gold, key.prompt)
    if key.free:
        spans = [s for s in spans if not _namesake(tokens, s)]
    if not spans and not key.strict:
        spans = aliases.find_misspelt(tokens, keep, key.gold, key.rival_words)
    if not spans and key.free:
        spans = aliases.find_misspelt_names(tokens, keep, key.gold)
        spans = spans or coverage.find_covered(tokens, keep, key.phrases)
        alone = people.find_alone(tokens, key.surnames)
        spans = spans or [aliases.Span(tokens[i].raw, i, i) for i in alone]
    return [Mention(True, s.alias, s.first, s.last) for s in spans]


def _namesake(tokens: list[Token], span: aliases.Span) -> bool:
    """True for "John Quincy Adams" where John Adams is meant."""
    ends = (tokens[span.first].norm, tokens[span.last].norm)
    return ends in people.NAMESAKES and span.last - span.first > 1


def _numeric(key: Key, prepared: str, tokens: list[Token]) -> list[Mention]:
    mentions = []
    for quantity in numbers.quantities(prepared, tokens):
        before = tokens[quantity.first - 1].norm if quantity.first else ""
        fitting = [t for t in key.targets if numbers.compatible(quantity, t)]
        hit = any(numbers.matches(quantity, t, range_asked=key.range_asked) for t in fitting)
        aside = _day_of_month(tokens, quantity) or _echoed_number(key, tokens, quantity)
        aside = aside or (key.free and not _counts_what_was_asked(key, tokens, quantity))
        if before in _LABELLED or not fitting or (aside and not hit):
            continue
        label = prepared[tokens[quantity.first].start : tokens[quantity.last].end]
        mentions.append(Mention(hit, label, quantity.first, quantity.last))
    return mentions


def _counts_what_was_asked(key: Key, tokens: list[Token], quantity: numbers.Quantity) -> bool:
    """True for "7 seasons" where the question asks how many seasons there are.

    Long answers to free rows are full of other numbers, which say nothing against the right one.
    """
    after = tokens[quantity.last + 1 : quantity.last + 3]
    return any(t.stem in key.counted for t in after) or quantity.unit is not None


def _dated(key: Key, prepared: str, tokens: list[Token]) -> list[Mention]:
    """Dates that agree with an accepted one, and those that contradict its month or day.

    "May 3, 1985" contradicts "14 May 1985" even where "1985" is accepted too.
    """
    mentions = []
    for date, first, last in dates.find_dates(prepared, tokens):
        found = [(dates.agreement(date, g, year_known=key.known_years), g) for g in key.dates]
        best = max((g.precision for how, g in found if how is Agreement.SAME), default=0)
        against = (g for how, g in found if how is Agreement.CONFLICT and date.first == g.first)
        clash = max((g.precision for g in against), default=0)
        coarse = date.first is not None and any(how is Agreement.COARSER for how, _ in found)
        label = prepared[tokens[first].start : tokens[last].end]
        if best and best >= clash:
            mentions.append(Mention(True, label, first, last))
        elif clash:
            mentions.append(Mention(False, label, first, last))
        elif coarse and key.free and (date.month or _another_date(key, date)):
            mentions.append(Mention(True, label, first, last))
        elif key.free and _another_date(key, date):
            mentions.append(Mention(False, label, first, last))
    return mentions


def _another_date(key: Key, date: dates.Date) -> bool:
    """True for a date that answers "when" with something else, not one the question names."""
    return date.first is not None and not (
        date.first == date.last and date.first in key.known_years
    )


def _day_of_month(tokens: list[Token], quantity: numbers.Quantity) -> bool:
    around = tokens[max(0, quantity.first - 1) : quantity.last + 2]
    return quantity.low <= 31 and any(t.norm in _MONTHS for t in around)


def _echoed_number(key: Key, tokens: list[Token], quantity: numbers.Quantity) -> bool:
    return quantity.high is None and tokens[quantity.first].norm in key.prompt


def _resolve(key: Key, tokens: list[Token], mentions: list[Mention]) -> list[Mention]:
    """Longest mention first where they overlap, echoes of the question dropped."""
    chosen: list[Mention] = []
    # At equal length gold first: an alias that equals a distractor's words is the probe's choice.
    for mention in sorted(mentions, key=lambda m: (m.first - m.last, not m.gold)):
        overlaps = any(m.first <= mention.last and mention.first <= m.last for m in chosen)
        if not overlaps and not _echo(key, tokens, mention):
            chosen.append(mention)
    return chosen


def _echo(key: Key, tokens: list[Token], mention: Mention) -> bool:
    """True where the mention only stands in words copied from the question."""
    if tokens[mention.first].norm not in key.prompt:
        return False
    words = [(i, t.norm) for i, t in enumerate(tokens) if t.norm[0].isalnum()]
    inside = [p for p, (i, _) in enumerate(words) if mention.first <= i <= mention.last]
    if not inside:
        return False
    first, last = inside[0], inside[-1]
    while first > 0 and _in_prompt(key, [w for _, w in words[first - 1 : last + 1]]):
        first -= 1
    while last + 1 < len(words) and _in_prompt(key, [w for _, w in words[first : last + 2]]):
        last += 1
    run = last - first + 1
    return (
        _in_prompt(key, [w for _, w in words[first : last + 1]]) and run - len(inside) >= _ECHO_RUN
    )


def _in_prompt(key: Key, words: list[str]) -> bool:
    size = len(words)
    wanted = tuple(words)
    return any(key.prompt[i : i + size] == wanted for i in range(len(key.prompt) - size + 1))
