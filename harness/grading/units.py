"""Units of measurement: read from text, brought to one scale per dimension.

A unit is a quotient of simple units ("mg/dL", "kcal per gram", "beats a minute"). Each simple
unit has a dimension and a factor to that dimension's base unit; the quotient's follow from them.
Factors: SI Brochure (BIPM, 9th edition), NIST SP 811 appendix B; 1 kcal = 4.184 kJ.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_SIMPLE: dict[str, tuple[str, float, str]] = {
    # dimension, factor, spellings; the names of the first column only need to be distinct
    "kg": ("mass", 1e3, "kg kgs kilo kilos kilogram kilograms kilogramme kilogrammes"),
    "g": ("mass", 1.0, "g gm gms gram grams gramme grammes"),
    "mg": ("mass", 1e-3, "mg mgs milligram milligrams milligramme milligrammes"),
    "ug": ("mass", 1e-6, "μg ug mcg microgram micrograms"),
    "ng": ("mass", 1e-9, "ng nanogram nanograms"),
    "pg": ("mass", 1e-12, "pg picogram picograms"),
    "lb": ("mass", 453.59237, "lb lbs pound pounds"),
    "oz": ("mass", 28.349523, "oz ounce ounces"),
    "l": ("volume", 1.0, "l liter liters litre litres"),
    "dl": ("volume", 0.1, "dl deciliter deciliters decilitre decilitres"),
    "ml": ("volume", 1e-3, "ml mls milliliter milliliters millilitre millilitres cc"),
    "ul": ("volume", 1e-6, "μl ul microliter microliters microlitre microlitres mm3 mm^3"),
    "pint": ("volume", 0.473176473, "pint pints"),
    "quart": ("volume", 0.946352946, "quart quarts"),
    "gallon": ("volume", 3.785411784, "gallon gallons"),
    "km": ("length", 1e3, "km kilometer kilometers kilometre kilometres"),
    "m": ("length", 1.0, "m meter meters metre metres"),
    "cm": ("length", 1e-2, "cm centimeter centimeters centimetre centimetres"),
    "mm": ("length", 1e-3, "mm millimeter millimeters millimetre millimetres"),
    "um": ("length", 1e-6, "μm um micron microns micrometer micrometers micrometre micrometres"),
    "nm": ("length", 1e-9, "nm nanometer nanometers nanometre nanometres"),
    "in": ("length", 0.0254, "inch inches"),
    "ft": ("length", 0.3048, "ft foot feet"),
    "mile": ("length", 1609.344, "mile miles"),
    "m2": ("area", 1.0, "m2 m^2"),
    "ms": ("time", 1e-3, "ms millisecond milliseconds msec"),
    "s": ("time", 1.0, "s sec secs second seconds"),
    "min": ("time", 60.0, "min mins minute minutes"),
    "h": ("time", 3600.0, "h hr hrs hour hours"),
    "d": ("time", 86400.0, "day days"),
    "week": ("time", 604800.0, "week weeks wk wks"),
    "month": ("time", 2629800.0, "month months"),
    "year": ("time", 31557600.0, "year years yr yrs"),
    "kcal": ("energy", 4184.0, "kcal kcals cal cals calorie calories kilocalorie kilocalories"),
    "kj": ("energy", 1000.0, "kj kilojoule kilojoules"),
    "j": ("energy", 1.0, "joule joules"),
    "mmhg": ("pressure", 1.0, "mmhg torr"),
    "kpa": ("pressure", 7.50061683, "kpa kilopascal kilopascals"),
    "mol": ("substance", 1e3, "mol mols mole moles"),
    "mmol": ("substance", 1.0, "mmol mmols millimole millimoles meq"),
    "umol": ("substance", 1e-3, "μmol umol micromole micromoles"),
    "percent": ("percent", 1.0, "% percent"),
    "iu": ("activity", 1.0, "iu"),
    "count": ("count", 1.0, "beats breaths times cells respirations"),
    "c": ("temperature", 1.0, "°c c celsius centigrade degc"),
    "f": ("temperature", 1.0, "°f f fahrenheit degf"),
}
_BY_SPELLING = {word: name for name, (_, _, words) in _SIMPLE.items() for word in words.split()}
_PHRASES = (
    (re.compile(r"\b(?:bpm)\b", re.I), "beats/min"),
    (re.compile(r"\bmm\.? ?(?:of )?(?:hg|mercury)\b|\bmillimet(?:er|re)s? of mercury\b", re.I),
     "mmhg"),
    (re.compile(r"\b(?:degrees?|deg\.?|°) *(celsius|centigrade|fahrenheit|[cf])\b", re.I), r"\1"),
    (re.compile(r"\bper ?cent\b", re.I), "%"),
    (re.compile(r"\binternational units\b", re.I), "iu"),
    (re.compile(r"\bmM\b"), "mmol/l"),
)  # fmt: skip
_UNIT_WORD = r"(?:°[CF]\b|%|[^\W\d_]+(?:\^?[23]\b)?)"
_PER = r"\s?(?:/|\bper\b|\ban?\b|\bin an?\b|\bevery\b|\beach\b)\s?"
_EXPRESSION = re.compile(rf"\s?-?({_UNIT_WORD})((?:{_PER}{_UNIT_WORD})*)", re.IGNORECASE)
_BELOW = re.compile(rf"{_PER}({_UNIT_WORD})", re.IGNORECASE)
_RATE_ONLY = re.compile(rf"\s?(?:/|\bper\b)\s?({_UNIT_WORD})", re.IGNORECASE)


class Unit(NamedTuple):
    """A parsed unit. value in base = value · factor (+ offset for °F)."""

    dimension: str
    """E.g. "mass", "mass/volume", "count/time"; "" for a bare count."""
    factor: float
    head_factor: float = 1.0
    """Factor of the part before the first "/" alone."""
    fahrenheit: bool = False

    @property
    def head(self) -> Unit:
        """The unit without its "per …"."""
        return Unit(
            self.dimension.split("/")[0], self.head_factor, self.head_factor, self.fahrenheit
        )

    def to_base(self, value: float) -> float:
        """`value` on the base scale of the dimension; temperatures in °C."""
        return (value - 32.0) / 1.8 if self.fahrenheit else value * self.factor


COUNT = Unit("", 1.0)
"""No unit, or one that names what is counted (206 bones)."""


def prepare(cleaned: str) -> str:
    """Rewrites multi-word units ("mm of mercury", "degrees Celsius") as one word each."""
    for pattern, replacement in _PHRASES:
        cleaned = pattern.sub(replacement, cleaned)
    return cleaned


def read_unit(prepared: str, position: int) -> tuple[Unit | None, int]:
    """(unit that starts at `position`, where it ends); None and `position` where there is none."""
    rate = _RATE_ONLY.match(prepared, position)
    if rate:
        divisor = _BY_SPELLING.get(rate.group(1).casefold())
        return (_quotient("count", [divisor]), rate.end()) if divisor else (None, position)
    match = _EXPRESSION.match(prepared, position)
    if not match:
        return None, position
    head = _lookup(match.group(1))
    if head is None:
        return None, position
    below: list[str] = []
    end = match.end(1)
    for part in _BELOW.finditer(match.group(2)):
        name = _lookup(part.group(1))
        if name is None:
            break
        below.append(name)
        end = match.start(2) + part.end()
    return _quotient(head, below), end


@lru_cache(maxsize=256)
def unit_named(text: str | None) -> Unit:
    """The unit a probe names; one that is not a unit of measurement ("bones") is a count."""
    if text is None:
        return COUNT
    prepared = prepare(text.strip())
    unit, end = read_unit(prepared, 0)
    return unit if unit is not None and not prepared[end:].strip() else COUNT


def _lookup(word: str) -> str | None:
    name = _BY_SPELLING.get(word.casefold())
    # A capital M or a lone capital other than L, C, F is no metre, second or gram.
    if name and len(word) == 1 and word.isupper() and word not in "LCFJ":
        return None
    return name


def _quotient(head: str, below: list[str]) -> Unit:
    dimension, factor, _ = _SIMPLE[head]
    head_factor = factor
    for name in below:
        part, divisor, _ = _SIMPLE[name]
        dimension += f"/{part}"
        factor /= divisor
    return Unit(dimension, factor, head_factor, fahrenheit=head == "f" and not below)
