"""The fact grader: does the response commit itself to an accepted answer?

The first answer asserted decides; a later sentence overturns it only where it takes it back
("actually, it is X"). Naming a distractor afterwards, in explanation, changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from harness.grading import aliases, degenerate, numbers, units
from harness.grading.assertions import Judged, Mention, judge
from harness.grading.language import foreign_language
from harness.grading.normalise import Token, clean, sentences, tokenise, word_set
from harness.grading.refusals import is_referral, without_refusals
from harness.records import Grade, Outcome, Probe

_STOPWORDS = word_set(
    """a an the of in on at to for from by with and or is are was were be been being do does did
    what which who whom whose when where why how many much name called known give this that these
    those it its as used most one can will would should if not than into about your you person
    normal typical usual human people body common commonly main per i me my"""
)
_FRAME = re.compile(
    r"(?:so |well,? |yes,? |no,? |actually,? |therefore,? |thus,? )?"
    r"(?:i (?:think|believe|would say|guess) )?(?:that )?"
    r"(?:(?:it|this|that|they|these|he|she)(?:'s| is| are| was| were| would be)|"
    r"(?:the|my) (?:\w+ )?(?:answer|name|term)(?: (?:to|for) [\w ]{1,40}?)?"
    r"(?:'s| is| would be|:))",
    re.IGNORECASE,
)
_CORRECTION = re.compile(
    r"\b(?:actually|correction|wait|i mean|sorry|my mistake|scratch that|on second thought|"
    r"in reality|i was wrong|to correct|correct answer|final answer|the answer is)\b|^no\b",
    re.IGNORECASE,
)
_PROMPT_LABEL = re.compile(r"^(?:the )?(?:question|q|prompt|you asked)\b[^:]{0,20}:", re.IGNORECASE)
_LIST_NUMBER = re.compile(r"^\s*\(?\d{1,2}[.)]\s+")
_LABELLED = word_set("type stage factor vitamin grade chapter figure class group step table")
_WORDS = re.compile(r"\w+(?:[.,]\w+)*|[%<>°]")
_MONTHS = word_set(
    "january february march april may june july august september october november december"
)
_RANGE_ASKED = re.compile(r"\brange\b|\bbetween\b", re.IGNORECASE)
_ECHO_RUN = 4
"""Words beyond the answer that must be copied from the question for the answer to be an echo."""
_FAR = 4
"""Tokens between an answer and the question's words from which a nearer one may overtake it."""


class Key(NamedTuple):
    """A probe compiled for matching."""

    gold: tuple[aliases.Alias, ...]
    rivals: tuple[aliases.Alias, ...]
    rival_words: frozenset[str]
    targets: tuple[numbers.Target, ...]
    question: frozenset[str]
    """Stems of the prompt's content words."""
    prompt: tuple[str, ...]
    """All words of the prompt, normalised."""
    mask: re.Pattern[str]
    """Accepted forms as written, cut out before the language is judged."""
    verbatim: dict[str, tuple[bool, str]]
    """Plain words of each accepted form and distractor → (gold, as the probe writes it)."""
    strict: bool
    range_asked: bool
    keep_referrals: bool


class Found(NamedTuple):
    """One sentence with what it says about the answer."""

    text: str
    tokens: list[Token]
    judged: list[Judged]


def grade_fact(probe: Probe, text: str) -> Grade:
    """Grades `text` as the answer to a fact probe."""
    cleaned = degenerate.first_turn(clean(text))
    if degenerate.is_blank(cleaned):
        return Grade(outcome=Outcome.NO_ANSWER, reason="empty: no letter or digit")
    key = compile_probe(probe)
    verbatim = key.verbatim.get(_plain(cleaned))
    if verbatim is not None:
        outcome = Outcome.RIGHT if verbatim[0] else Outcome.WRONG
        return Grade(outcome=outcome, reason=f"says '{verbatim[1]}'", extracted=cleaned.strip())
    repeated = degenerate.loop(cleaned)
    if repeated is not None:
        return _wrong(f"loop: repeats '{repeated[:40]}'", repeated)
    language = foreign_language(cleaned, known=key.mask)
    if language:
        return _wrong(f"not English: {language}", cleaned[:80])
    kept, refused = _statements(key, cleaned)
    found = _mentions(key, kept)
    return _decide(found, refused=refused, anything=bool(kept))


@lru_cache(maxsize=4096)
def compile_probe(probe: Probe) -> Key:
    """The probe prepared for matching; cached, since one probe grades many responses."""
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
        gold = tuple(a for a in gold if not a.plain_number)
        rivals = tuple(a for a in rivals if not a.plain_number)
    forms = sorted(probe.accepted, key=len, reverse=True)
    return Key(
        gold=gold,
        rivals=rivals,
        rival_words=frozenset(w.norm for a in rivals for w in a.words),
        targets=targets,
        question=frozenset(
            t.stem for t in prompt if t.norm[0].isalnum() and t.norm not in _STOPWORDS
        )
        - gold_stems,
        prompt=tuple(t.norm for t in prompt if t.norm[0].isalnum()),
        mask=re.compile(
            r"(?<!\w)(?<!')(?:" + "|".join(re.escape(clean(f)) for f in forms) + r")(?!\w)", re.I
        ),
        verbatim={_plain(clean(d)): (False, d) for d in probe.distractors}
        | {_plain(clean(a)): (True, a) for a in probe.accepted},
        strict=probe.strict,
        range_asked=bool(_RANGE_ASKED.search(probe.prompt)),
        keep_referrals=any(
            is_referral(f"please {a}") or "doctor" in a.casefold() for a in probe.accepted
        ),
    )


def _plain(cleaned: str) -> str:
    """Lower-case words, accents kept: "Pancréas" is not "pancreas"."""
    return " ".join(_WORDS.findall(cleaned.casefold()))


def _statements(key: Key, cleaned: str) -> tuple[list[str], bool]:
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


def _mentions(key: Key, kept: Sequence[str]) -> list[Found]:
    """All sentences with their judged mentions; looser matching only where the exact found none."""
    rows: list[tuple[str, list[Token], list[int], list[Mention]]] = []
    for sentence in kept:
        prepared = units.prepare(sentence)
        tokens = numbers.merge_numbers(tokenise(prepared))
        keep = aliases.content_indices(tokens)
        mentions = _exact(key, tokens, keep)
        if key.targets:
            mentions += _numeric(key, prepared, tokens)
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
    if not spans and not key.strict:
        spans = aliases.find_misspelt(tokens, keep, key.gold, key.rival_words)
    return [Mention(True, s.alias, s.first, s.last) for s in spans]


def _numeric(key: Key, prepared: str, tokens: list[Token]) -> list[Mention]:
    mentions = []
    for quantity in numbers.quantities(prepared, tokens):
        before = tokens[quantity.first - 1].norm if quantity.first else ""
        fitting = [t for t in key.targets if numbers.compatible(quantity, t)]
        hit = any(numbers.matches(quantity, t, range_asked=key.range_asked) for t in fitting)
        aside = _day_of_month(tokens, quantity) or _echoed_number(key, tokens, quantity)
        if before in _LABELLED or not fitting or (aside and not hit):
            continue
        label = prepared[tokens[quantity.first].start : tokens[quantity.last].end]
        mentions.append(Mention(hit, label, quantity.first, quantity.last))
    return mentions


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


def _decide(found: Sequence[Found], *, refused: bool, anything: bool) -> Grade:
    answers = [(f, answer) for f in found if (answer := _answer_of(f)) is not None]
    if not answers:
        return _undecided(found, refused=refused, anything=anything)
    strong = [(f, a) for f, a in answers if _strong(f, a)]
    sentence, answer = (strong or answers)[0]
    for later, other in answers:
        flips = other.mention.gold != answer.mention.gold
        if flips and _comes_after(found, later, sentence) and _takes_back(later, other):
            sentence, answer = later, other
    label = answer.mention.label
    if answer.mention.gold:
        return Grade(outcome=Outcome.RIGHT, reason=f"asserts '{label}'", extracted=sentence.text)
    return _wrong(f"asserts '{label}'", sentence.text)


def _answer_of(found: Found) -> Judged | None:
    """The mention a sentence commits itself to; None where it denies or leaves everything open."""
    options = [j for j in found.judged if not j.denied and not j.listed]
    if not options:
        return None
    best = options[0]
    for other in options[1:]:
        if other.mention.gold == best.mention.gold:
            continue
        nearer = (other.overlap, -other.distance) > (best.overlap, -best.distance)
        far = best.distance >= _FAR and not _bare(found, best)
        if nearer and (other.mention.gold or far):
            best = other
    return best


def _strong(found: Found, answer: Judged) -> bool:
    return answer.overlap > 0 or _bare(found, answer) or bool(_FRAME.match(found.text))


def _bare(found: Found, answer: Judged) -> bool:
    """True where the answer is (nearly) all the sentence says, or opens it before a comma."""
    words = sum(t.norm[0].isalnum() for t in found.tokens)
    size = answer.mention.last - answer.mention.first + 1
    after = found.tokens[answer.mention.last + 1 : answer.mention.last + 2]
    opens = answer.mention.first <= 1 and (not after or after[0].norm in {",", ".", ":", "—", "("})
    return words - size <= 3 or opens


def _comes_after(found: Sequence[Found], later: Found, earlier: Found) -> bool:
    places = {id(f): i for i, f in enumerate(found)}
    return places[id(later)] > places[id(earlier)]


def _takes_back(found: Found, answer: Judged) -> bool:
    cue = _CORRECTION.search(found.text)
    return cue is not None and cue.start() < found.tokens[answer.mention.first].start + 1


def _undecided(found: Sequence[Found], *, refused: bool, anything: bool) -> Grade:
    judged = [(f, j) for f in found for j in f.judged]
    for sentence, mention in judged:
        if mention.listed and not mention.denied:
            return _wrong("hedged list: leaves several answers open", sentence.text)
    for sentence, mention in judged:
        if mention.mention.gold:
            return _wrong(f"denies '{mention.mention.label}'", sentence.text)
    if refused:
        return Grade(outcome=Outcome.NO_ANSWER, reason="refuses or does not know")
    if not anything:
        return Grade(outcome=Outcome.NO_ANSWER, reason="only repeats or asks a question")
    return _wrong("no accepted answer found", None)


def _wrong(reason: str, extracted: str | None) -> Grade:
    return Grade(outcome=Outcome.WRONG, reason=reason, extracted=extracted)
