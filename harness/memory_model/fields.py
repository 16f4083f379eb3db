"""Reading numbers out of a config that nobody has checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.errors import ModelError
from harness.escape import visible

FIX = "take config.json from the model's own repository"
MOST = {
    "layers": 2_000,
    "width": 2_000_000,
    "vocab": 20_000_000,
    "heads": 10_000,
    "experts": 10_000,
}
"""No model is near these; a config beyond them is nonsense, not a large model."""


class Fields:
    """A config with the defaults of its family; every getter raises ModelError on nonsense."""

    def __init__(
        self, config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
    ) -> None:
        self._config = config
        self._defaults = dict(defaults or {})

    def get(self, key: str) -> Any:
        """The raw value; a null counts as absent."""
        value = self._config.get(key)
        return self._defaults.get(key) if value is None else value

    def number(self, key: str, kind: str, *, zero: bool = False) -> int:
        """A whole number from 1 (or 0) up to what `kind` allows."""
        found = self.get(key)
        if found is None:
            raise ModelError(f"config.json has no {key}, so its memory cannot be told; {FIX}")
        return checked(found, key, kind, zero=zero)

    def optional(self, key: str, kind: str) -> int | None:
        """A number, or None where the config has none."""
        return None if self.get(key) is None else self.number(key, kind)

    def flag(self, key: str) -> bool:
        """A true or false; absent without a default is false."""
        found = self.get(key)
        if found is not None and not isinstance(found, bool):
            raise ModelError(f"config.json says {key} is {told(found)}, not true or false; {FIX}")
        return bool(found)

    def names(self, key: str, length: int) -> tuple[str, ...] | None:
        """A list of `length` words, or None where the config has none."""
        found = self.get(key)
        if found is None:
            return None
        if not isinstance(found, list | tuple) or not all(isinstance(word, str) for word in found):
            raise ModelError(f"config.json says {key} is {told(found)}, not a list of words; {FIX}")
        if len(found) != length:
            raise ModelError(f"config.json lists {len(found)} {key} for {length} layers; {FIX}")
        return tuple(found)


def checked(value: object, key: str, kind: str, *, zero: bool = False) -> int:
    """`value` as a whole number that makes sense for `kind`; ModelError otherwise."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ModelError(f"config.json says {key} is {told(value)}, not a whole number; {FIX}")
    if value < (0 if zero else 1) or value > MOST[kind]:
        raise ModelError(
            f"config.json says {key} is {told(value)}, which no model has "
            f"(at most {MOST[kind]:,}); {FIX}"
        )
    return value


def told(value: object) -> str:
    """A value of unknown origin, short enough for a sentence."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**15:
        return "an absurdly large number"
    if not isinstance(value, str | int | float):
        return f"a {type(value).__name__}"
    return repr(visible(str(value)[:80], 60))
