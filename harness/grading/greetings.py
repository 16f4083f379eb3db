"""The greeting grader: does the reply greet back as a polite person would?

Right needs a courtesy formula that fits what was said, among the first sentences, and nothing that
spoils it: no lecture, refusal, loop, other language or leaked template. What fits is lenient, since
small models are: a greeting and an offer to help fit every kind but these two

* thanks and goodbye: an offer to help fits ("Hello! How can I help you today?"), a bare "Hello!"
  does not;
* a time of day may be answered with another one ("Good morning" → "Good evening").
"""

from __future__ import annotations

import re

from rapidfuzz.fuzz import partial_ratio

from harness.grading import courtesies, degenerate
from harness.grading.language import foreign_language
from harness.grading.normalise import clean, sentences
from harness.grading.refusals import is_referral, is_refusal
from harness.records import Grade, Outcome, Probe

MAX_WORDS = 60
"""A longer reply to a greeting is a lecture."""

MAX_OTHER_WORDS = 30
"""Most words a reply may spend on sentences that are no courtesy."""

_FIRST_SENTENCES = 3
"""The courtesy must come within this many sentences."""

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def grade_greeting(probe: Probe, text: str) -> Grade:
    """Grades `text` as the reply to a greeting; `probe.category` names the kind of greeting."""
    cleaned = clean(text)
    if degenerate.is_blank(cleaned):
        return Grade(outcome=Outcome.NO_ANSWER, reason="empty: no letter or digit")
    flaw = _form_flaw(probe, cleaned)
    if flaw:
        return _wrong(flaw, cleaned)
    parts = sentences(cleaned)
    if _refuses(parts):
        return Grade(outcome=Outcome.NO_ANSWER, reason="refuses", extracted=parts[0])
    kinds = _kinds(probe)
    courtesy = _courtesy(parts[:_FIRST_SENTENCES], kinds)
    if courtesy is None:
        return _wrong(
            f"does not answer a {' or '.join(kinds).replace('_', ' ')} greeting", parts[0]
        )
    lecture = _lecture(parts, kinds)
    if lecture:
        return _wrong(lecture, cleaned)
    return Grade(outcome=Outcome.RIGHT, reason=f"says '{courtesy}'", extracted=parts[0])


def _form_flaw(probe: Probe, cleaned: str) -> str | None:
    leak = degenerate.template_leak(cleaned)
    if leak:
        return f"leaks the chat template: '{leak[:30]}'"
    repeated = degenerate.loop(cleaned)
    if repeated is not None:
        return f"loop: repeats '{repeated[:40]}'"
    language = foreign_language(cleaned)
    if language:
        return f"not English: {language}"
    if courtesies.LETTER.search(cleaned):
        return "writes a letter instead of answering"
    if _parrots(probe, cleaned):
        return "only repeats what was said"
    count = len(_WORD.findall(cleaned))
    return f"lecture: {count} words" if count > MAX_WORDS else None


def _parrots(probe: Probe, cleaned: str) -> bool:
    """A greeting may be returned as it came; thanks, questions and introductions may not."""
    if not {"thanks", "how_are_you", "introduction", "availability"} & set(_kinds(probe)):
        return False

    def letters(text: str) -> str:
        return "".join(_WORD.findall(clean(text).casefold()))

    return letters(cleaned) == letters(probe.prompt) and "meet you" not in cleaned.casefold()


def _kinds(probe: Probe) -> tuple[str, ...]:
    """The kinds of greeting the prompt is; typo, upper_case and unknown categories are read off it.

    "I have to go now. Good night!" in goodbye stays goodbye; "Good night" as a time of day is one.
    """
    prompt = clean(probe.prompt).casefold()
    category = probe.category
    if category in courtesies.FORMULAS and category != "time_of_day":
        return (category,)
    for kind, words in courtesies.KEYWORDS:
        if any(w in prompt or (len(w) > 4 and partial_ratio(w, prompt) >= 80) for w in words):
            return (kind,)
    return ("time_of_day",) if category == "time_of_day" else ("hello",)


def _refuses(parts: list[str]) -> bool:
    """True where the reply declines before it says anything courteous."""
    for part in parts:
        if re.search(r"\b(?:feelings?|emotions?)\b", part, re.I):
            continue
        if re.match(r"\W*(?:i'?m|i am) (?:so |very )?sorry(?! ,?\s*but)[^,]*$", part, re.I):
            continue  # an apology out of place, which an offer may still follow
        if is_refusal(part) or is_referral(part):
            before = re.split(r"\bbut\b", part, maxsplit=1)[0]
            return not (
                courtesies.OFFER.search(before)
                or courtesies.SALUTE.search(before)
                or courtesies.WELL.search(before)
            )
        if any(
            formula.search(part)
            for formula in (*courtesies.ANY, courtesies.WELCOME, courtesies.FAREWELL)
        ):
            return _refuses_next(parts, parts.index(part))
    return False


def _refuses_next(parts: list[str], courteous: int) -> bool:
    """True for "Hello! I'm sorry, but I can't help with that."."""
    following = parts[courteous + 1 : courteous + 2]
    return (
        bool(following)
        and is_refusal(following[0])
        and not courtesies.OFFER.search(" ".join(parts))
    )


def _courtesy(parts: list[str], kinds: tuple[str, ...]) -> str | None:
    for part in parts:
        for kind in kinds:
            for formula in courtesies.FORMULAS[kind]:
                match = formula.search(part)
                if match:
                    return match.group().strip(" ,.!-")[:40]
    return None


def _lecture(parts: list[str], kinds: tuple[str, ...]) -> str | None:
    """Why the reply is a lecture behind its courtesy, or None."""
    others = 0
    for part in parts:
        offers = bool(courtesies.OFFER.search(part)) or part.endswith("?")
        frame = courtesies.LECTURE.search(part)
        topics = {t.casefold() for t in courtesies.TOPIC.findall(part)}
        if frame and (topics or not offers):
            return f"lecture: '{frame.group()}'"
        words = len(_WORD.findall(part))
        if topics and not offers and (words >= 5 or len(topics) >= 2):
            return f"lecture: talks about {min(topics)}"
        courteous = offers or any(f.search(part) for k in kinds for f in courtesies.FORMULAS[k])
        others += 0 if courteous else words
    return f"lecture: {others} words off the greeting" if others > MAX_OTHER_WORDS else None


def _wrong(reason: str, extracted: str) -> Grade:
    return Grade(outcome=Outcome.WRONG, reason=reason, extracted=extracted[:200])
