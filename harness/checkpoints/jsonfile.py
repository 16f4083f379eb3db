"""JSON objects from files that somebody else wrote."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any, NamedTuple

from harness.checkpoints.safetensors import shown
from harness.errors import OperationalError


class _Limits(NamedTuple):
    """What a file may hold, so that the worst one is refused at once instead of parsed."""

    size: int
    """Bytes."""
    containers: int
    """Opening brackets and braces."""
    commas: int


_SETTINGS = _Limits(16 << 20, 100_000, 1_000_000)
_VOCABULARY = _Limits(100 << 20, 2_000_000, 8_000_000)
"""The largest tokenizer.json in use is about 35 MB and has half a million merges."""
_LARGE = ("tokenizer.json", "vocab.json", "added_tokens.json", "model.safetensors.index.json")


def read_json_object(path: Path, error: type[OperationalError], fix: str) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises `error` with one sentence that ends in `fix` when the file is missing, unreadable,
    too large or too complex, a Git LFS pointer, or not a JSON object.
    """
    limits = _VOCABULARY if path.name in _LARGE else _SETTINGS
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > limits.size:
            raise error(f"{path} is no regular file of a sane size; {fix}")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as cause:
        raise error(f"{path} is missing; {fix}") from cause
    except UnicodeDecodeError as cause:
        raise error(f"{path} is not UTF-8 text; {fix}") from cause
    except OSError as cause:
        raise error(f"{path} cannot be read ({cause.strerror}); {fix}") from cause
    if text.startswith("version https://git-lfs"):
        raise error(f"{path} is a Git LFS pointer, not the file; run `git lfs pull`")
    if text.count("[") + text.count("{") > limits.containers or text.count(",") > limits.commas:
        raise error(f"{path} holds far more entries than any model needs; {fix}")
    try:
        value = json.loads(text, parse_constant=_constant)
    except (ValueError, RecursionError) as cause:
        raise error(f"{path} is not valid JSON ({shown(str(cause), 80)}); {fix}") from cause
    if not isinstance(value, dict):
        raise error(f"{path} must hold a JSON object, not a {type(value).__name__}; {fix}")
    return value


def _constant(name: str) -> float:
    """Infinity, which real configs hold (Mamba's time limits), but no NaN, which spreads."""
    if name == "NaN":
        raise ValueError("it holds NaN, which is no number")
    return float(name)
