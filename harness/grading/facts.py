"""The fact grader: does the response commit itself to an accepted answer?

The first answer asserted decides; a later sentence overturns it only where it takes it back
("actually, it is X"). Naming a distractor afterwards, in explanation, changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.grading import degenerate
from harness.grading.assertions import Judged
from harness.grading.key import Key, compile_probe, plain
from harness.grading.language import foreign_language
from harness.grading.mentions import Found, mentions_in, statements
from harness.grading.normalise import clean, word_set
from harness.records import Grade, Outcome, Probe

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
_DENIAL = re.compile(
    r"(?:but |however,? |in fact,? )?(?:it|that|this)"
    r"(?:(?:'s| is| was) (?:wrong|incorrect|false|a myth|not(?: (?:so|true|right|the case))?)"
    r"| (?:isn't|wasn't)(?: (?:so|true|right|the case))?)\W*",
    re.IGNORECASE,
)
_LINKING = frozenset({"is", "was", "are", "were"})
_BEFORE_NAME = word_set("the a an called named known as in at by")
_FAR = 4
"""Tokens between an answer and the question's words from which a nearer one may overtake it."""


def grade_fact(probe: Probe, text: str) -> Grade:
    """Grades `text` as the answer to a fact probe."""
    return grade_by(compile_probe(probe), text)


def grade_by(key: Key, text: str) -> Grade:
    """Grades `text` against a compiled probe."""
    cleaned = degenerate.first_turn(clean(text))
    if degenerate.is_blank(cleaned):
        return Grade(outcome=Outcome.NO_ANSWER, reason="empty: no letter or digit")
    verbatim = key.verbatim.get(plain(cleaned))
    if verbatim is not None:
        outcome = Outcome.RIGHT if verbatim[0] else Outcome.WRONG
        return Grade(outcome=outcome, reason=f"says '{verbatim[1]}'", extracted=cleaned.strip())
    repeated = degenerate.loop(cleaned)
    if repeated is not None:
        return _wrong(f"loop: repeats '{repeated[:40]}'", repeated)
    language = foreign_language(cleaned, known=key.mask)
    if language and not key.free:
        return _wrong(f"not English: {language}", cleaned[:80])
    kept, refused = statements(key, cleaned)
    found = mentions_in(key, kept)
    grade = _decide(found, refused=refused, anything=bool(kept))
    if grade.outcome is Outcome.RIGHT and key.asked:
        grade = _unless_another(key, found) or grade
    if language and grade.outcome is not Outcome.RIGHT:
        return _wrong(f"not English: {language}", cleaned[:80])
    return grade


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
    following = next((f for f in found if _comes_after(found, f, sentence)), None)
    if following is not None and _DENIAL.fullmatch(following.text):
        return _wrong(f"denies '{label}'", following.text)
    if answer.mention.gold:
        return Grade(outcome=Outcome.RIGHT, reason=f"asserts '{label}'", extracted=sentence.text)
    return _wrong(f"asserts '{label}'", sentence.text)


def _unless_another(key: Key, found: Sequence[Found]) -> Grade | None:
    """WRONG where the question is restated with another answer before the right one is named.

    "The capital of Australia is Sydney. Other cities are Perth and Canberra." A free row has no
    distractors that would tell.
    """
    for sentence in found:
        if any(j.mention.gold for j in sentence.judged):
            return None
        links = [i for i, t in enumerate(sentence.tokens) if t.norm in _LINKING]
        if not links or not key.asked <= {t.stem for t in sentence.tokens[: links[-1]]}:
            continue
        rest = [t for t in sentence.tokens[links[-1] + 1 :] if t.norm not in _BEFORE_NAME]
        later = found[found.index(sentence) + 1 :]
        corrected = any(_CORRECTION.search(f.text) for f in later)
        if rest and rest[0].raw[:1].isupper() and rest[0].stem not in key.asked and not corrected:
            return _wrong(f"answers '{rest[0].raw}'", sentence.text)
    return None


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
