"""Undoes what copying a chat answer from a web page does to it.

Footnote marks stay behind as digits glued to the last word ("by Jane Campion1."), and words that
were links or bold lose the spaces around them ("directed byJane Campion"). Used where an answer
comes from a file; replies of a model that was asked directly are graded as they are.
"""

from __future__ import annotations

import re
from functools import lru_cache

from harness.grading.normalise import word_set

_BRACKETED = re.compile(r"\s?(?:\[\^?\d{1,2}\^?\]|\^\d{1,2}\^|【[^】]{1,20}】)")
_WORD_NOTE = re.compile(r"(?<=[a-z]{3})[1-9]\d{0,2}(?=[.!?,;]?(?:\s|$))")
_QUOTE_NOTE = re.compile(r"(?<=[\"')\u201d])[1-9]\d{0,2}(?=[.!?,;])")
_YEAR_NOTE = re.compile(r"(?<![\w.,$£€])((?:1[0-9]|20)\d\d)([1-9]\d{0,2})(?=[.;]\s*(?:\s|$))")
_LAST_YEAR_NOTE = re.compile(r"\b((?:1[0-9]|20)\d\d)[1-9]\d{0,2}(?=\.?\s*$)")
_GLUE = word_set(
    "a an the of in on at by to from for as and or is are was were with called named that be "
    "been located"
)
_SHORTEST = 6
"""Letters from which an answer may be looked for inside a longer word."""
_AFTER = word_set(
    "of in on at by to from for as and or is are was were with who which that where has had won "
    "called region"
)
_BEFORE_CAPITAL = re.compile(r"\b([A-Za-z]+[a-z])(?=[A-Z][a-z]|(?:1\d|20)\d\d(?!\d))")
_DIGIT_WORD = re.compile(r"(?<!\d)((?:1\d|20)\d\d)(?=[a-z]{2,})(?!s\b|th\b|st\b|nd\b|rd\b)")


def repair(text: str, forms: tuple[str, ...] = ()) -> str:
    """`text` without footnote marks and with the spaces that stood around links.

    `forms` are accepted answers: small letters glued to one of them ("thebasement membranesof")
    can only be told from a word by knowing it.
    """
    text = _BRACKETED.sub("", text)
    digits = any(re.search(r"[a-z]\d", form) for form in forms)
    if not digits:
        text = _WORD_NOTE.sub("", text)
        text = _QUOTE_NOTE.sub("", text)
    text = _YEAR_NOTE.sub(r"\1", text)
    text = _LAST_YEAR_NOTE.sub(r"\1", text)
    text = _BEFORE_CAPITAL.sub(_spaced, text)
    text = _DIGIT_WORD.sub(r"\1 ", text)
    folded = text.casefold()
    for form in forms:
        if len(form) >= _SHORTEST and _is_glued(folded, form.casefold()):
            text = _around(form).sub(_parted, text)
    return text


def _is_glued(text: str, form: str) -> bool:
    """True where the first `form` in `text` has a letter right before or after it."""
    start = text.find(form)
    if start < 0:
        return False
    around = text[start - 1 : start] + text[start + len(form) : start + len(form) + 1]
    return any(c.isalpha() for c in around)


@lru_cache(maxsize=4096)
def _around(form: str) -> re.Pattern[str]:
    before, after = "|".join(sorted(_GLUE)), "|".join(sorted(_AFTER))
    return re.compile(rf"\b({before})?({re.escape(form)}(?:e?s)?)({after})?\b", re.IGNORECASE)


def _spaced(match: re.Match[str]) -> str:
    word = match.group(1)
    return f"{word} " if word.casefold() in _GLUE or not word.isalpha() else word


def _parted(match: re.Match[str]) -> str:
    return " ".join(part for part in match.groups() if part)
