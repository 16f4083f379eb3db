"""Output that is no answer at all: nothing, punctuation, loops, leaked chat-template tokens."""

from __future__ import annotations

import re

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_TEMPLATE = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
    r"|^\s*#{2,} ?(?:Instruction|Response|Input)\b.*$"
    r"|(?<=\n)\s*(?:User|Human|Assistant|System)\s*:",
    re.IGNORECASE | re.MULTILINE,
)
_LABEL = re.compile(
    r"^\s*(?:\*\*)?(?:(?:final|short|correct) )?(?:answer|assistant|response|ai|bot|a)(?:\*\*)?\s*:"
    r"(?:\*\*)?\s*",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[^\W_]+")


def is_blank(text: str) -> bool:
    """True where there is no letter and no digit: empty, newlines, "!!!!", emoji."""
    return _LETTER_OR_DIGIT.search(text) is None


def template_leak(text: str) -> str | None:
    """The first leaked template token or turn label, or None. A leading "Answer:" is no leak."""
    match = _TEMPLATE.search(text)
    return match.group().strip() if match else None


def first_turn(text: str) -> str:
    """What stands before the first leaked token, without a leading "Answer:" label."""
    parts = (part for part in _TEMPLATE.split(text) if not is_blank(part))
    return _LABEL.sub("", next(parts, ""), count=1)


def loop(text: str) -> str | None:
    """The repeated unit where most of `text` is one unit over and over, else None.

    A unit of up to 3 words must come at least 4 times in a row, a longer one (up to 20 words) at
    least 3 times, and together they must make up 60 % of the words. Characters without spaces
    ("hahahaha", one letter 20 times) count as well.
    """
    words = _WORDS.findall(text.casefold())
    if len(words) < 4:
        run = re.search(r"([^\W\d]{1,4}?)\1{7,}", text.casefold())
        return run.group(1) if run else None
    if 3 * len(set(words)) > 2 * len(words):
        return None
    for size in range(1, min(20, len(words) // 3) + 1):
        needed = 4 if size <= 3 else 3
        covered = _longest_repeat(words, size)
        if covered >= size * needed and covered >= 0.6 * len(words):
            return _unit(words, size, covered)
    return None


def _longest_repeat(words: list[str], size: int) -> int:
    """Length in words of the longest stretch with period `size`."""
    best = run = 0
    for i in range(size, len(words)):
        run = run + 1 if words[i] == words[i - size] else 0
        best = max(best, run)
    return best + size if best else 0


def _unit(words: list[str], size: int, covered: int) -> str:
    run = 0
    for i in range(size, len(words)):
        run = run + 1 if words[i] == words[i - size] else 0
        if run + size == covered:
            return " ".join(words[i - size + 1 : i + 1])
    return " ".join(words[:size])
