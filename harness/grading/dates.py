"""Dates in text: "12 August 2012", "Feb. 9th, 2018", "the 1930s", "the 5th century BC".

A date is a stretch of years with, where it says so, a month and a day. Two dates are compared by
what both of them say: "1994" agrees with "3 March 1994" and tells less, "3 May 1985" contradicts
"14 May 1985".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from harness.grading.normalise import Token, clean

_NAMES = ("january", "february", "march", "april", "may", "june", "july", "august", "september",
          "october", "november", "december")  # fmt: skip
MONTHS = {name: n for n, name in enumerate(_NAMES, 1)}
_NUMBER_OF = MONTHS | {name[:3]: n for name, n in MONTHS.items()} | {"sept": 9}
_MONTH = r"(?P<month>" + "|".join(sorted(_NUMBER_OF, key=len, reverse=True)) + r")\b\.?"
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?(?!\d)"
_YEAR = r"(?P<year>1\d{3}|20\d{2})(?![\d%])(?!,\d{3})"
_ERA = r"(?:\s?(?P<era>BCE?|B\. ?C\.(?: ?E\.)?|CE|AD|A\. ?D\.|C\. ?E\.)(?!\w))"
ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
    "eighth": 8, "ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12, "thirteenth": 13,
    "fourteenth": 14, "fifteenth": 15, "sixteenth": 16, "seventeenth": 17, "eighteenth": 18,
    "nineteenth": 19, "twentieth": 20, "twenty-first": 21,
}  # fmt: skip
_HUNDREDS = {"sixteen": 1600, "seventeen": 1700, "eighteen": 1800, "nineteen": 1900}
_TENS = {
    "twenties": 20, "thirties": 30, "forties": 40, "fifties": 50, "sixties": 60, "seventies": 70,
    "eighties": 80, "nineties": 90,
}  # fmt: skip
_CENTURY = r"(?P<century>\d{1,2}(?:st|nd|rd|th)|" + "|".join([*ORDINALS]) + r")[ -]century"
_TO = r"(?:\s?(?:-|to|through|and)\s?[0-3]?\d(?:st|nd|rd|th)?(?!\d))?"
_PATTERNS = tuple(
    re.compile(r"(?<![\w/.,$£€])" + pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<year>1\d{3}|20\d{2})-(?P<number>[01]\d)-(?P<day>[0-3]\d)(?!\d)",
        r"(?P<one>[0-3]?\d)[/.](?P<two>[0-3]?\d)[/.](?P<year>1\d{3}|20\d{2})(?!\d)",
        rf"{_DAY}{_TO}(?: day)?(?: of)? {_MONTH}(?:,? (?:of |in )?{_YEAR})?",
        rf"{_MONTH} (?:the )?{_DAY}{_TO}(?:,? (?:of |in )?{_YEAR})?",
        rf"{_MONTH},? (?:of |in )?{_YEAR}",
        rf"{_CENTURY}{_ERA}?",
        rf"(?P<hundreds>{'|'.join(_HUNDREDS)})[ -](?P<tens>{'|'.join(_TENS)})\b",
        r"(?P<decade>1\d{2}0|20\d0)'?s\b",
        rf"(?P<ancient>\d{{1,4}}){_ERA}",
        r"(?:AD|A\. ?D\.) ?(?P<ancient>\d{1,4})(?!\d)",
        _YEAR,
        _MONTH,
    )
)
_NO_MONTH = frozenset({"may", "march", "mar", "dec", "sept", "sep", "jan"})
"""Also words and names: alone and in small letters they are no month."""
_MODERN = 1800
"""Years from which a century is too coarse an answer."""


class Date(NamedTuple):
    """A day, month, year, decade or century. Years before Christ are negative."""

    first: int | None
    """First year; None where only a month or day is said."""
    last: int | None
    month: int | None = None
    day: int | None = None

    @property
    def precision(self) -> int:
        """How many of year, month and day are said."""
        return sum(part is not None for part in (self.first, self.month, self.day))


class Dated(NamedTuple):
    """A date and the tokens (`last` included) that say it."""

    date: Date
    first: int
    last: int


class Agreement(Enum):
    """How a date in an answer relates to the right one."""

    SAME = "same"
    """Equal, or inside it."""
    COARSER = "coarser"
    """Says less, and contradicts nothing."""
    CONFLICT = "conflict"
    VAGUE = "vague"
    """Contradicts nothing, but is no answer: a century for a modern year, a year for a day."""


def find_dates(text: str, tokens: Sequence[Token]) -> list[Dated]:
    """The dates of a cleaned sentence in order; `tokens` are those of that sentence."""
    found: list[Dated] = []
    for date, start, end in sorted(_scan(text), key=lambda d: d[1]):
        inside = [i for i, t in enumerate(tokens) if t.start < end and t.end > start]
        if inside:
            found.append(Dated(date, inside[0], inside[-1]))
    return found


def as_date(text: str) -> Date | None:
    """The date that is all `text` says ("in the 1930s", "Monday, 2 May 1904")."""
    cleaned = clean(text)
    scanned = list(_scan(cleaned))
    if not scanned or len({(start, end) for _, start, end in scanned}) != 1:
        return None
    date, start, end = scanned[0]
    rest = f"{cleaned[:start]} {cleaned[end:]}"
    return date if _ONLY_PADDING.fullmatch(rest) else None


_ONLY_PADDING = re.compile(
    r"(?:\W|\b(?:in|on|at|by|the|of|during|around|about|circa|ca?|approximately|since|year|early|late"
    r"|mid|sometime|(?:mon|tues|wednes|thurs|fri|satur|sun)day|very|from|starting|as|period|until)"
    r"\b)*",
    re.IGNORECASE,
)


def agreement(found: Date, gold: Date, *, year_known: frozenset[int] = frozenset()) -> Agreement:
    """How `found` relates to `gold`. `year_known` are years that the question itself names."""
    shared = any(a is not None and b is not None for a, b in zip(found, gold, strict=True))
    if not shared:
        return Agreement.VAGUE
    result = Agreement.SAME
    if gold.first is not None and found.first is None:
        if gold.first not in year_known:
            result = Agreement.COARSER
    elif gold.first is not None and found.first is not None:
        assert gold.last is not None and found.last is not None
        if found.last < gold.first or found.first > gold.last:
            return Agreement.CONFLICT
        if found.first < gold.first or found.last > gold.last:
            vague = found.last - found.first >= 99 and gold.last >= _MODERN
            result = Agreement.VAGUE if vague else Agreement.COARSER
    for ours, right in ((found.month, gold.month), (found.day, gold.day)):
        if ours is None and right is not None and result is Agreement.SAME:
            result = Agreement.COARSER
        elif ours is not None and right is not None and ours != right:
            return Agreement.CONFLICT
    return result


def years(text: str) -> frozenset[int]:
    """Single years named in a text."""
    return frozenset(
        d.first for d, _, _ in _scan(clean(text)) if d.first is not None and d.first == d.last
    )


def _scan(text: str) -> Iterator[tuple[Date, int, int]]:
    taken = [False] * len(text)
    for pattern in _PATTERNS:
        for match in pattern.finditer(text):
            if any(taken[match.start() : match.end()]):
                continue
            found = _both_orders(match) if "one" in match.groupdict() else [_read(match)]
            for date in found:
                if date is not None:
                    taken[match.start() : match.end()] = [True] * (match.end() - match.start())
                    yield date, match.start(), match.end()


def _both_orders(match: re.Match[str]) -> list[Date | None]:
    """9/11/1989 is the ninth of November and the eleventh of September: both may be meant."""
    year, one, two = int(match["year"]), int(match["one"]), int(match["two"])
    pairs = {(one, two), (two, one)}
    return [Date(year, year, m, d) for m, d in sorted(pairs) if 1 <= m <= 12 and 1 <= d <= 31]


def _is_month(match: re.Match[str], name: str) -> bool:
    """True where a lone month name is one: not "may", "mar" or the "March" that opens a line."""
    if name.islower():
        return False
    return name.casefold() not in _NO_MONTH or bool(
        _BEFORE_MONTH.search(match.string[: match.start()])
    )


_BEFORE_MONTH = re.compile(
    r"\b(?:in|of|mid|early|late|until|since|by|during|each|every)[ -]$", re.I
)


def _read(match: re.Match[str]) -> Date | None:
    part = match.groupdict()
    before = bool(part.get("era")) and part["era"].upper().startswith("B")
    if part.get("century"):
        word = part["century"].casefold()
        n = ORDINALS.get(word) or int(re.sub(r"\D", "", word))
        return Date(-100 * n, -100 * n + 99) if before else Date(100 * n - 99, 100 * n)
    if part.get("tens"):
        start = _HUNDREDS[part["hundreds"].casefold()] + _TENS[part["tens"].casefold()]
        return Date(start, start + 9)
    if part.get("decade"):
        decade = int(part["decade"])
        # "The 1800s" are a century; "the 2000s" are mostly ten years.
        return Date(decade, decade + (99 if decade % 100 == 0 and decade < 2000 else 9))
    if part.get("ancient"):
        year = -int(part["ancient"]) if before else int(part["ancient"])
        return Date(year, year)
    name = part.get("month")
    if name and match.group() == name and not _is_month(match, name):
        return None
    month = _NUMBER_OF[name.casefold()] if name else None
    if part.get("number"):
        month = int(part["number"])
    day = int(part["day"]) if part.get("day") else None
    if (month or 1) > 12 or not 1 <= (day or 1) <= 31:
        return None
    year = int(part["year"]) if part.get("year") else None  # type: ignore[assignment]
    return Date(year, year, month, day)
