"""Makes arbitrary model output safe and legible inside Markdown. Pure.

A model can answer with pipes, HTML, ANSI escapes, bidi overrides or `@everyone`. Here such text
is first made *visible* (what would be acted upon or hidden is spelled out), then *escaped* (what
is left renders as itself on GitHub, GitLab, CommonMark and GFM).
"""

from __future__ import annotations

import re
import unicodedata

_NEWLINE = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_NEWLINE_RUN = re.compile("(?:⏎ *){4,}")
_ZERO_WIDTH_SPACE = "&#8203;"

# Invisible code points that Unicode files under letters, marks or symbols, so that their
# category does not give them away (Default_Ignorable_Code_Point, plus the blank braille cell).
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\U000e0100-\U000e01ef]"
)

# Hosting sites look for mentions, issue numbers, links and emoji in the *rendered* text, where
# an escape is already gone; only a character in between stops them, hence the zero-width space.
_SPECIAL = re.compile(
    r"""
    (?P<entity>    [|<>] | &(?=\#|\w+;) )
  | (?P<sigil>     (?<!\w)[!%](?=\w) | (?<!\w)&(?=\d) | [@\#](?=\S) | (?<!\w)~(?=\w) )
  | (?P<split>     /(?=/) | (?i:www)(?=\.) | :(?=[\w+-]+:) | (?i:\bGH)-(?=\d) )
  | (?P<dollar>    \$ )
  | (?P<backslash> [\\`*~\[\]] | (?<![^\W_])_ | _(?![^\W_]) )
    """,
    re.VERBOSE,
)
_ENTITIES = {"|": "&#124;", "<": "&lt;", ">": "&gt;", "&": "&amp;"}
_BLOCK_START = re.compile(r"^(?P<number>\d{1,9})(?=[.)](?:\s|$))|^(?=[-+=#]|:-)")


def cell(text: str, max_chars: int = 160) -> str:
    """Return `text` as one line of Markdown that stays inside its table cell.

    Args:
        text: anything a model can emit, lone surrogates included.
        max_chars: characters kept; the rest is replaced by "… (+N characters)".
    """
    return _SPECIAL.sub(_escape, visible(text, max_chars))


def block(text: str, max_chars: int = 2000) -> str:
    """Return `text` as one line that may also begin a paragraph or a list item.

    On top of `cell`, a leading list marker, heading or rule loses its meaning.
    """
    escaped = cell(text, max_chars)
    start = _BLOCK_START.match(escaped)
    if start is None:
        return escaped
    return f"{escaped[: start.end()]}\\{escaped[start.end() :]}"


def prose(text: str, max_chars: int = 600) -> str:
    """Return `text` as one line, also in a table, in which what stands between backticks is code.

    Code is not escaped, so that a command can be copied; nothing in it is acted upon either. A
    text whose backticks do not pair up, or with a pipe in its code, is escaped as `cell` does.
    """
    parts = visible(text, max_chars).split("`")
    code = parts[1::2]
    if len(parts) % 2 == 0 or any("|" in part or not part.strip() for part in code):
        return cell(text, max_chars)
    return "".join(
        f"`{part}`" if number % 2 else _SPECIAL.sub(_escape, part)
        for number, part in enumerate(parts)
    )


def visible(text: str, max_chars: int) -> str:
    """Return what a reader should see: one line, nothing hidden, at most about `max_chars` long.

    Line ends become ⏎ (four or more in a row ⏎×N), control characters their picture (␛), and
    invisible, bidirectional, private or broken code points ⟨U+XXXX⟩. Runs of blanks shrink to
    one as they would in Markdown, except in a text of blanks alone, which becomes ␠×N.
    """
    text = _NEWLINE.sub("⏎", text)
    if text and not text.strip(" "):
        return f"␠×{len(text)}"
    text = _NEWLINE_RUN.sub(lambda run: f"⏎×{run[0].count('⏎')}", text)
    text = re.sub(" +", " ", text).strip(" ")
    left_out = len(text) - max_chars
    shown = "".join(_show(char) for char in text[:max_chars]).rstrip(" ")
    return f"{shown}… (+{left_out} characters)" if left_out > 0 else shown


def _show(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if code < 0x7F:
        return char
    hidden = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co") or _INVISIBLE.match(char)
    noncharacter = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return f"⟨U+{code:04X}⟩" if hidden or noncharacter else char


def _escape(match: re.Match[str]) -> str:
    found = match[0]
    match match.lastgroup:
        case "entity":
            return _ENTITIES[found]
        case "sigil":
            return ("\\~" if found == "~" else found) + _ZERO_WIDTH_SPACE
        case "split":
            return found + _ZERO_WIDTH_SPACE
        case "dollar":
            # GitHub finds math after unescaping, but only where a blank precedes the dollar.
            return _ZERO_WIDTH_SPACE + "\\$"
        case _:
            return "\\" + found


def folded(summary: str, body: str) -> str:
    """Return Markdown that GitHub folds away; both parts are escaped already."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"
