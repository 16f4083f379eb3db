"""Text → comparable words: Unicode, accents, Greek letters, British spelling, inflection.

Both sides of every comparison (alias and response) pass through the same functions, so a rule
here may be crude as long as it maps two spellings of one word to one form.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta",
    "η": "eta", "θ": "theta", "κ": "kappa", "λ": "lambda", "μ": "mu", "π": "pi", "σ": "sigma",
    "τ": "tau", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
}  # fmt: skip

_IRREGULAR = {
    "feet": "foot", "teeth": "tooth", "men": "man", "women": "woman", "children": "child",
    "mice": "mouse", "lice": "louse", "people": "person", "bacteria": "bacterium",
    "vertebrae": "vertebra", "vertebre": "vertebra", "alveoli": "alveolus", "nuclei": "nucleus",
    "fungi": "fungus", "villi": "villus", "bronchi": "bronchus", "ova": "ovum",
    "atria": "atrium", "larvae": "larva", "calves": "calf", "halves": "half", "knives": "knife",
    "mitochondria": "mitochondrion", "ganglia": "ganglion", "phalanges": "phalanx",
    "aluminium": "aluminum", "grey": "gray", "haem": "heme", "programme": "program",
}  # fmt: skip

_LIGATURES = str.maketrans({"œ": "oe", "æ": "ae", "ø": "o", "ß": "ss", "ł": "l", "đ": "d"})
_TYPOGRAPHY = str.maketrans(
    {"’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "‐": "-", "‑": "-", "−": "-", "–": "-"}
    | {"—": " — ", "⁄": "/", "\u200b": None, "\ufeff": None, "\xad": None}
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")

_RHESUS = re.compile(r"\b(A|B|AB|O|Rh)([+-])(?![\w+-])")
_SIGN = {"+": " positive", "-": " negative"}
_PREFIXED = re.compile(r"\b(non|anti)[- ](?=[a-z]{4})", re.IGNORECASE)

_BRITISH = (
    (re.compile("ae|oe"), "e"),
    (re.compile(r"our(s|ed|ing|less|al)?$"), r"or\1"),
    (re.compile(r"(?<![aeou])([iy])s(e[drs]?|ers|es|ing|ations?)$"), r"\1z\2"),
    (re.compile("sulph"), "sulf"),
    (re.compile("leuco"), "leuko"),
    (re.compile(r"([bt])re(s?)$"), r"\1er\2"),
    (re.compile(r"ll(ed|ing)$"), r"l\1"),
)

_TOKEN = re.compile(
    r"\d+(?:[.,]\d+)*(?:/\d+(?:\.\d+)?)?"  # 1,000  98.6  120/80
    r"|[^\W\d_]\w*(?:'[^\W\d_]+)?"  # insulin  b12  isn't
    r"|[^\w\s-]"  # punctuation; hyphens only separate words
)
_KEEPS_S = frozenset({"it", "that", "he", "she", "what", "there", "here", "let", "who"})
_LETTERED = frozenset(
    {"vitamin", "hepatitis", "type", "group", "influenza", "protein", "blood", "factor", "grade"}
)
ARTICLES = frozenset({"a", "an", "the"})


class Token(NamedTuple):
    """One word, number or punctuation mark of a cleaned text."""

    raw: str
    norm: str
    """Lower case, no accents, American spelling, possessive removed; a number in plain digits."""
    stem: str
    """`norm` without plural, -ed, -ing and final e."""
    start: int
    end: int


def word_set(text: str) -> frozenset[str]:
    """The words of a vocabulary written as one string."""
    return frozenset(text.split())


def clean(text: str) -> str:
    """Unicode NFKC with plain quotes and hyphens, and one spelling for what hyphens obscure.

    Superscripts become "^n", so that 10⁹ ≠ 109; "O-" becomes "O negative"; "non-steroidal"
    becomes "nonsteroidal".
    """
    if not text.isascii():
        text = _SUPERSCRIPT_RUN.sub(lambda m: "^" + m.group().translate(_SUPERSCRIPTS), text)
        text = unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY)
    text = _RHESUS.sub(lambda m: m.group(1) + _SIGN[m.group(2)], text)
    return _PREFIXED.sub(r"\1", text)


@lru_cache(maxsize=65536)
def strip_accents(word: str) -> str:
    """Base letters: "Touré" → "Toure"; ligatures are spelled out."""
    if word.isascii():
        return word
    decomposed = unicodedata.normalize("NFD", word.translate(_LIGATURES))
    return "".join(c for c in decomposed if not unicodedata.combining(c))


@lru_cache(maxsize=65536)
def normal_word(raw: str) -> str:
    """One word in its comparable spelling, before number words are merged."""
    word = strip_accents(raw.casefold()).translate(_LIGATURES)
    if not word.isascii():
        word = "".join(GREEK.get(c, c) for c in word)
    head, _, tail = word.partition("'")
    if tail == "s" and head not in _KEEPS_S:
        word = head
    if len(word) >= 5 and word.isalpha():
        for pattern, replacement in _BRITISH:
            word = pattern.sub(replacement, word)
    return _IRREGULAR.get(word, word)


@lru_cache(maxsize=65536)
def singular(word: str) -> str:
    """English singular of a normalised word; a word that is not a plural comes back unchanged."""
    word = _IRREGULAR.get(word, word)
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "zes", "ches", "shes")):
        return word[:-2]
    if word.endswith("ses") and len(word) >= 7 and word[-4] in "oye":
        return word[:-2] + "is"  # diagnoses, paralyses, prostheses
    return word[:-1]


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """Inflection-free form of a normalised word: lowers, lowered, lowering → lower."""
    word = singular(word)
    if not word.isalpha():
        return word
    for suffix in ("ing", "ed"):
        base = word.removesuffix(suffix)
        if base != word and len(base) >= 4:
            word = base[:-1] if base[-1] == base[-2] and base[-1] not in "ls" else base
            break
    return word[:-1] if len(word) >= 5 and word.endswith("e") else word


def tokenise(cleaned: str) -> list[Token]:
    """Words, numbers and punctuation of a cleaned text, in order, with their offsets."""
    tokens = []
    for match in _TOKEN.finditer(cleaned):
        raw = match.group()
        norm = _number_norm(raw) if raw[0].isdecimal() else normal_word(raw) or raw
        tokens.append(Token(raw, norm, stem(norm), match.start(), match.end()))
    return tokens


@lru_cache(maxsize=4096)
def _number_norm(raw: str) -> str:
    """Plain digits: "1,000" → "1000", "5.0" → "5", "37,5" → "37.5"; pairs (120/80) are kept."""
    if not raw.isascii():
        raw = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in raw)
    if "/" in raw:
        return raw
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", raw):
        raw = raw.replace(",", "")
    elif re.fullmatch(r"\d+,\d+", raw):
        raw = raw.replace(",", ".")
    elif "," in raw or raw.count(".") > 1:
        return raw
    if "." in raw:
        raw = raw.rstrip("0").rstrip(".")
    return raw.lstrip("0") or "0" if "." not in raw else raw


def is_article(tokens: list[Token], i: int) -> bool:
    """True where token `i` is an article; the A of "vitamin A" or of a bare "A" is not one."""
    token = tokens[i]
    if token.norm not in ARTICLES:
        return False
    if token.norm != "a":
        return True
    following = tokens[i + 1].norm if i + 1 < len(tokens) else ""
    if not following or not following[0].isalnum() or following in {"positive", "negative"}:
        return False
    if i == 0:
        return True
    return token.raw == "a" and tokens[i - 1].norm not in _LETTERED


_BREAK = re.compile(r"(?<=[.!?])[\"')\]*]*\s+|\s*\n+\s*")
_ABBREVIATED = re.compile(
    r"(?:(?:^|[\s(\"'])(?:[A-Za-z]|[A-Z](?:\.[A-Z])+|dr|mr|mrs|ms|st|vs|e\.g|i\.e|approx|ca|no|jr|sr"
    r"|prof|fig|u\.s|jan|feb|apr|aug|sept?|oct|nov|dec)|^\(?\d{1,2})\.$",
    re.IGNORECASE,
)
_LETTER_ANSWER = re.compile(rf"\b(?:{'|'.join(sorted(_LETTERED))}) \w\.$", re.IGNORECASE)


def sentences(cleaned: str) -> list[str]:
    """Sentences and lines of a cleaned text; abbreviations and list numbers do not end one."""
    result: list[str] = []
    pending = ""
    position = 0
    for match in _BREAK.finditer(cleaned):
        pending += cleaned[position : match.start()]
        position = match.end()
        abbreviated = _ABBREVIATED.search(pending) and not _LETTER_ANSWER.search(pending)
        if abbreviated and "\n" not in match.group():
            pending += " "
        else:
            result.append(pending)
            pending = ""
    result.append(pending + cleaned[position:])
    return [sentence.strip() for sentence in result if sentence.strip()]
