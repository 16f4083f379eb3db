"""mlx-lm's strict load without weights: only names, dtypes and shapes are looked at.

mlx-lm's own loader runs on the folder, lazily, so that no array is ever computed or read. Its
model class is subclassed to see what reaches `load_weights`, so that tensors that do not fit are
known by name, not from the text of an exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.checkpoints.folder import read_config
from harness.checkpoints.load_failures import Mismatch, Misshapen
from harness.checkpoints.safetensors import ELSEWHERE, shown
from harness.errors import ModelError, ToolMissingError

try:
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import _get_classes, get_total_parameters, load_model
except ImportError as missing:  # pragma: no cover - depends on the machine
    raise ToolMissingError(
        f"MLX is not installed here ({missing}); install it with: pip install mlx-lm 'mlx[cpu]'"
    ) from missing

MAX_COUNT = 10_000
"""Layers, experts or the like; a config with more would build modules until memory ends."""

_COUNTS = re.compile(r"layer|block|expert|depth|stage", re.IGNORECASE)
_BROKEN = (
    ValueError, KeyError, TypeError, RuntimeError, AttributeError, IndexError, OSError,
    ZeroDivisionError, OverflowError, AssertionError,
)  # fmt: skip
"""What mlx-lm's models raise on configs and tensors they were not written for."""


class LazyLoad(NamedTuple):
    """What mlx-lm made of a folder's config and headers."""

    mismatch: Mismatch
    """Empty where the strict load succeeded."""
    parameters: int
    """Parameters of the model that was built; 0 where the load failed."""
    dropped: tuple[str, ...]
    """Tensors that mlx-lm leaves out on purpose, by their names in the file; empty where they
    cannot be told from rearranged ones."""
    dropped_parameters: int
    """Stored elements that do not reach the model."""


class _Seen:
    """What passed through the loader."""

    def __init__(self) -> None:
        self.stored: dict[str, mx.array] = {}
        self.given: dict[str, mx.array] = {}
        self.mismatch: Mismatch | None = None


def lazy_load(folder: Path) -> LazyLoad:
    """Load a model folder strictly and lazily with mlx-lm; nothing is evaluated.

    The folder's headers must have been checked before (`check_model_folder`).

    Raises:
        ModelError: mlx-lm has no such architecture, or cannot build it from this config, or its
            preparation of the tensors breaks. One sentence, the fix after the last semicolon.
    """
    config = read_config(folder)
    _check_counts(config)
    seen = _Seen()
    try:
        model, _ = load_model(
            folder, lazy=True, strict=True, get_model_classes=lambda config: _watched(config, seen)
        )
    except ModelError:
        raise
    except _BROKEN as error:
        if seen.mismatch is not None and any(seen.mismatch):
            return LazyLoad(seen.mismatch, 0, (), 0)
        raise ModelError(_cause(config, seen, error)) from error
    dropped, elements = _dropped(seen)
    return LazyLoad(Mismatch(), get_total_parameters(model), dropped, elements)


def _watched(config: dict[str, Any], seen: _Seen) -> tuple[type, type]:
    """mlx-lm's classes for a config, the model's with eyes on what is loaded."""
    name = config["model_type"]
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", name):
        raise ModelError(
            f"model_type {shown(name, 80)} is no name of an architecture; copy config.json from "
            "the base model"
        )
    try:
        model_class, settings_class = _get_classes(config)
    except ValueError as error:
        raise ModelError(
            f"mlx-lm has no architecture {shown(name, 80)}; choose a base whose model_type "
            "mlx-lm supports, or a newer mlx-lm: python -m pip install -U mlx-lm"
        ) from error

    class Watched(model_class):  # type: ignore[misc, valid-type]
        def load_weights(self, weights: Any, strict: bool = True) -> Any:
            seen.given = dict(weights)
            seen.mismatch = _compare(dict(tree_flatten(self.parameters())), seen.given)
            return super().load_weights(weights, strict=strict)

    if hasattr(model_class, "sanitize"):

        def sanitize(self: Any, weights: dict[str, mx.array], *rest: Any, **more: Any) -> Any:
            seen.stored = dict(weights)
            return model_class.sanitize(self, weights, *rest, **more)

        Watched.sanitize = sanitize
    return Watched, settings_class


def _compare(model: Mapping[str, mx.array], given: Mapping[str, mx.array]) -> Mismatch:
    return Mismatch(
        missing=tuple(sorted(model.keys() - given.keys())),
        unexpected=tuple(sorted(given.keys() - model.keys())),
        misshapen=tuple(
            Misshapen(name, tuple(model[name].shape), tuple(given[name].shape))
            for name in sorted(model.keys() & given.keys())
            if model[name].shape != given[name].shape
        ),
    )


def _dropped(seen: _Seen) -> tuple[tuple[str, ...], int]:
    """What was stored and did not reach the model: (names if certain, elements)."""
    elements = sum(a.size for a in seen.stored.values()) - sum(a.size for a in seen.given.values())
    if not seen.stored or elements <= 0:
        return (), 0
    reached = {id(array) for array in seen.given.values()}
    gone = [name for name, array in seen.stored.items() if id(array) not in reached]
    # A tensor that was transposed or joined is a new array; then the elements do not add up.
    certain = sum(seen.stored[name].size for name in gone) == elements
    return (tuple(sorted(gone)) if certain else ()), elements


def _cause(config: Mapping[str, Any], seen: _Seen, error: Exception) -> str:
    """One sentence for an exception of mlx-lm that is not about single tensors."""
    name = shown(str(config["model_type"]), 80)
    absent = re.search(r"missing \d+ required positional arguments?: (.+)$", str(error))
    if absent:
        keys = shown(absent[1].replace("'", ""), 200)
        return (
            f"config.json lacks {keys}, which mlx-lm's {name} needs; copy config.json from the "
            "base model's repository"
        )
    reason = shown(" ".join(str(error).split()), 200).rstrip(".")
    if isinstance(error, KeyError):
        what = "a tensor or setting" if seen.stored else "a setting"
        return (
            f"mlx-lm's {name} needs {what} called {reason}, which is not there; copy config.json "
            "and weights from one and the same repository"
        )
    return (
        f"mlx-lm cannot build {name} from this config and these tensors "
        f"({reason.replace(';', ',') or type(error).__name__}); copy config.json from the base "
        "model, or choose another base"
    )


def _check_counts(config: Mapping[str, Any]) -> None:
    for key, value in _walk(config):
        size = len(value) if isinstance(value, list) else value
        if isinstance(size, int) and size > MAX_COUNT and _COUNTS.search(key):
            raise ModelError(
                f"config.json has {shown(key, 80)} of {shown(str(size), 30)}, more than any model; "
                f"{ELSEWHERE}"
            )


def _walk(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        yield key, value
        if isinstance(value, dict):
            yield from _walk(value)
