"""Engines by name. A new engine is one file beside this one and one line in ENGINES."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from harness.engines.protocol import Engine
from harness.errors import UsageError

ENGINES = {
    "mlx": "harness.engines.mlx:MlxEngine",
    "llamacpp": "harness.engines.llamacpp:LlamaCppEngine",
    "scripted": "harness.engines.scripted:ScriptedEngine",
}
"""Engine name → module:class, imported on first use so that a missing runtime costs nothing."""


def open_engine(name: str, model: Path) -> Engine:
    """Load `model` (a folder for mlx, a .gguf file for llamacpp) in the named engine.

    Raises:
        UsageError: no engine of that name.
        ToolMissingError: its runtime is not installed here.
        ModelError: the model does not load.
    """
    try:
        module_name, class_name = ENGINES[name].split(":")
    except KeyError:
        known = ", ".join(sorted(ENGINES))
        raise UsageError(f"There is no engine '{name}'; the engines are {known}.") from None
    engine: Engine = getattr(import_module(module_name), class_name)(model)
    return engine
