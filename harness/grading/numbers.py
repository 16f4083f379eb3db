"""Numbers in text: digits and words, ranges, units, and whether they equal a gold quantity."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from harness.grading.normalise import Token, clean, tokenise
from harness.grading.units import Unit, prepare, read_unit, unit_named
from harness.records import Number

_SMALL = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70,
    "eighty": 80, "ninety": 90,
}  # fmt: skip
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_ORDINAL = re.compile(r"^(st|nd|rd|th)$")
_RANGE_GAP = re.compile(r"\s*(?:-|—|\bto\b|\band\b|\bthrough\b|\bup to\b)\s*", re.IGNORECASE)
_BETWEEN = re.compile(r"\b(?:between|from)\s*(?:about |around |approximately )?$", re.IGNORECASE)

CONVERSION_TOLERANCE = 0.015
"""Relative error allowed on top where a unit was converted, since people round (5.5 mmol/L)."""

TEMPERATURE_TOLERANCE_C = 0.15
"""Absolute error in °C allowed between Celsius and Fahrenheit."""


class Quantity(NamedTuple):
    """A number or range in a text. `first` and `last` index its tokens, last included."""

    low: float
    high: float | None
    unit: Unit | None
    """None where no unit of measurement follows."""
    first: int
    last: int


def merge_numbers(tokens: list[Token]) -> list[Token]:
    """Number words become one token in digits: "two hundred and six" → 206; "15th" → 15.

    "120 over 80" becomes 120/80 and "5.5 million" becomes 5500000.
    """
    result: list[Token] = []
    i = 0
    while i < len(tokens):
        value, used = _number_at(tokens, i)
        if not used:
            result.append(tokens[i])
            i += 1
            continue
        result.append(_numeric(tokens, i, used, _plain(value)))
        i += used
        if i < len(tokens) and _ORDINAL.match(tokens[i].norm):
            i += tokens[i].start == tokens[i - 1].end
    return _merge_over(result)


def _merge_over(tokens: list[Token]) -> list[Token]:
    if not any(t.norm == "over" for t in tokens):
        return tokens
    result: list[Token] = []
    i = 0
    while i < len(tokens):
        if (
            i + 2 < len(tokens)
            and tokens[i + 1].norm == "over"
            and tokens[i].norm.isdecimal()
            and tokens[i + 2].norm.isdecimal()
        ):
            pair = f"{tokens[i].norm}/{tokens[i + 2].norm}"
            result.append(_numeric(tokens, i, 3, pair))
            i += 3
        else:
            result.append(tokens[i])
            i += 1
    return result


def _numeric(tokens: list[Token], i: int, used: int, norm: str) -> Token:
    first, last = tokens[i], tokens[i + used - 1]
    return Token(first.raw, norm, norm, first.start, last.end)


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.10g}"


def _parse(norm: str) -> float | None:
    if not norm[0].isdecimal():
        return None
    try:
        return float(norm) if len(norm) < 30 else None
    except ValueError:
        return None


def _number_at(tokens: list[Token], i: int) -> tuple[float, int]:
    """(value, tokens used) of the number that starts at token `i`; (0, 0) where none does."""
    digits = _parse(tokens[i].norm)
    if digits is not None:
        value, used = _scaled(digits, tokens, i + 1)
        return value, used + 1
    total = current = 0.0
    used = 0
    j = i
    while j < len(tokens):
        word = tokens[j].norm
        if word in _SMALL and _fits(_SMALL[word], tokens, j, current if used else None):
            current += _SMALL[word]
        elif word in _TENS and current % 100 == 0:
            current += _TENS[word]
        elif word == "hundred" and current < 100:
            current = max(current, 1) * 100
        elif word in _SCALES and word != "hundred" and used:
            total, current = total + max(current, 1) * _SCALES[word], 0.0
        elif word == "dozen":
            return max(current, 1) * 12, j - i + 1
        elif not _joins(tokens, j, used):
            break
        j += 1
        used = j - i
    if not used:
        return 0.0, 0
    return _decimals(tokens, i, used, total + current)


def _fits(value: int, tokens: list[Token], j: int, current: float | None) -> bool:
    """True where a word below twenty goes on with the number; "twenty fifteen" is two numbers."""
    if current is None:
        return True
    room = 10 if current % 100 else 20
    return 0 < value < room and current % 10 == 0 and tokens[j - 1].norm not in _SMALL


def _joins(tokens: list[Token], j: int, used: int) -> bool:
    """True for "and" or a comma inside a number: two hundred and six."""
    if not used or j + 1 >= len(tokens) or tokens[j].norm not in {"and", ","}:
        return False
    follows = tokens[j + 1].norm
    return tokens[j - 1].norm in _SCALES and (follows in _SMALL or follows in _TENS)


def _decimals(tokens: list[Token], i: int, used: int, value: float) -> tuple[float, int]:
    """Reads what follows a spelled "point": thirty-seven point five → 37.5."""
    j = i + used
    if j + 1 >= len(tokens) or tokens[j].norm != "point" or tokens[j + 1].norm not in _SMALL:
        return value, used
    digits = ""
    j += 1
    while j < len(tokens) and _SMALL.get(tokens[j].norm, 10) < 10:
        digits += str(_SMALL[tokens[j].norm])
        j += 1
    return (float(f"{int(value)}.{digits}"), j - i) if digits else (value, used)


def _scaled(value: float, tokens: list[Token], j: int) -> tuple[float, int]:
    used = 0
    while used < 2 and j + used < len(tokens) and tokens[j + used].norm in _SCALES:
        value *= _SCALES[tokens[j + used].norm]
        used += 1
    return value, used


def words_of(text: str) -> list[Token]:
    """Tokens of a raw text (an alias, a prompt) with numbers merged."""
    return list(_words_of(text))


@lru_cache(maxsize=16384)
def _words_of(text: str) -> tuple[Token, ...]:
    return tuple(merge_numbers(tokenise(clean(text))))


def quantities(prepared: str, tokens: Sequence[Token]) -> list[Quantity]:
    """All numbers and ranges of a sentence with their units.

    `prepared` is the cleaned sentence after `units.prepare`, `tokens` its merged tokens. Fractions
    and pairs such as 120/80 are left to alias matching.
    """
    found: list[Quantity] = []
    for i, token in enumerate(tokens):
        value = _parse(token.norm)
        if value is None:
            continue
        unit, _ = read_unit(prepared, token.end)
        if found and found[-1].last == _previous_number(tokens, i):
            joined = _as_range(prepared, tokens, found[-1], i, value, unit)
            if joined:
                found[-1] = joined
                continue
        found.append(Quantity(value, None, unit, i, i))
    return found


def _previous_number(tokens: Sequence[Token], i: int) -> int:
    for j in range(i - 1, -1, -1):
        if tokens[j].norm[0].isdecimal():
            return j
    return -1


def _as_range(
    prepared: str, tokens: Sequence[Token], before: Quantity, i: int, value: float,
    unit: Unit | None,
) -> Quantity | None:  # fmt: skip
    if before.high is not None or value <= before.low:
        return None
    start = tokens[before.last].end
    _, end = read_unit(prepared, start)
    gap = prepared[max(start, end) : tokens[i].start]
    if not _RANGE_GAP.fullmatch(gap):
        return None
    if "and" in gap.casefold() and not _BETWEEN.search(prepared[: tokens[before.first].start]):
        return None
    if before.unit is not None and unit is not None and before.unit != unit:
        return None
    return Quantity(before.low, value, unit or before.unit, before.first, i)


class Target(NamedTuple):
    """What a quantity must equal: bounds on the base scale of `unit`."""

    low: float
    high: float | None
    unit: Unit
    tolerance: float


def targets(number: Number, accepted: tuple[str, ...]) -> tuple[Target, ...]:
    """The probe's number and the quantities its accepted forms spell out (other units)."""
    unit = unit_named(number.unit)
    result = [Target(number.value, number.high, unit, number.tolerance)]
    for form in accepted:
        prepared = prepare(clean(form))
        for quantity in quantities(prepared, merge_numbers(tokenise(prepared))):
            other = quantity.unit or unit
            result.append(Target(quantity.low, quantity.high, other, number.tolerance))
    return tuple(dict.fromkeys(result))


def compatible(quantity: Quantity, target: Target) -> bool:
    """True where the quantity could be an answer: same dimension, or no unit given.

    A missing "per day" is forgiven: "180 litres" is compared with 180 L/day as litres.
    """
    if quantity.unit is None:
        return True
    ours, gold = quantity.unit.dimension, target.unit.dimension
    one_bare = ("/" in ours) != ("/" in gold)
    if {ours, gold} == {"", "count"}:
        return True
    return ours == gold or (one_bare and ours.split("/")[0] == gold.split("/")[0])


def matches(quantity: Quantity, target: Target, *, range_asked: bool) -> bool:
    """True where the quantity equals the target within tolerance.

    A gold range needs both ends, or, unless the question asks for a range, one value inside it.
    A gold value accepts a range around it no wider than four times its tolerance.
    """
    if not compatible(quantity, target):
        return False
    gold_unit = target.unit
    unit = quantity.unit or gold_unit
    if unit.dimension != gold_unit.dimension:
        unit, gold_unit = unit.head, gold_unit.head
    low = unit.to_base(quantity.low)
    high = None if quantity.high is None else unit.to_base(quantity.high)
    gold_low = gold_unit.to_base(target.low)
    gold_high = None if target.high is None else gold_unit.to_base(target.high)
    converted = unit != gold_unit

    def close(a: float, b: float) -> bool:
        slack = target.tolerance * abs(b) + 1e-6 * max(1e-9, abs(b))
        if converted:
            celsius = gold_unit.dimension == "temperature"
            slack += TEMPERATURE_TOLERANCE_C if celsius else CONVERSION_TOLERANCE * abs(b)
        return abs(a - b) <= slack

    if gold_high is not None:
        if high is not None:
            return close(low, gold_low) and close(high, gold_high)
        inside = gold_low <= low <= gold_high or close(low, gold_low) or close(low, gold_high)
        return inside and not range_asked
    if high is None:
        return close(low, gold_low)
    width = 4 * target.tolerance * abs(gold_low)
    return low <= gold_low <= high and high - low <= width
