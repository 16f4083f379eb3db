"""Runs twins as the gate does: in a worker process, with MLX's fast BLAS; and breaks some."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from harness.machine import cache_root
from harness.registry import TrainingSettings
from harness.twins.pipeline import FUSED, Examined, Settings, examine
from harness.twins.shrink import shrink
from harness.workers import local_worker, run


class Twins:
    """One worker process, in which one twin after the other is examined."""

    def __init__(self, executor: Executor, log: Path) -> None:
        self._executor = executor
        self._log = log

    def examined(
        self,
        config: dict[str, Any],
        work: Path,
        *,
        quantised: bool = True,
        broken: str | None = None,
    ) -> Examined:
        """What the pipeline makes of a config's miniature, its fused folder broken first."""
        work.mkdir(parents=True)
        return run(self._executor, self._log, None, _examine, config, work, quantised, broken)


@contextlib.contextmanager
def twins(log: Path) -> Iterator[Twins]:
    """Twins in a worker that ends with the block."""
    with local_worker(log) as executor:
        yield Twins(executor, log)


def _examine(config: dict[str, Any], work: Path, quantised: bool, broken: str | None) -> Examined:
    def tamper(name: str, folder: Path) -> None:
        if broken is not None and name == FUSED:
            BREAKS[broken](folder)

    settings = Settings(
        cache_root(), TrainingSettings(), quantised=quantised, tamper=tamper if broken else None
    )
    return examine(shrink(config), work, settings)


def _permute_heads(folder: Path) -> None:
    """Swap the first two attention heads' queries, as a converter with the wrong layout would."""
    from safetensors.numpy import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file)
    config = json.loads((folder / "config.json").read_text())
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    for name in [n for n in tensors if n.endswith("q_proj.weight")]:
        rows = tensors[name].copy()
        rows[:size], rows[size : 2 * size] = tensors[name][size : 2 * size], tensors[name][:size]
        tensors[name] = rows
    save_file(tensors, file, metadata={"format": "mlx"})


def _no_number(folder: Path) -> None:
    """A weight as diverged training leaves it."""
    from safetensors.numpy import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, file, metadata={"format": "mlx"})


def _change(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


BREAKS = {
    "permuted heads": _permute_heads,
    "no number": _no_number,
    "wrong rope base": lambda folder: _change(folder, rope_theta=10000.0),
    "dropped rope scaling": lambda folder: _change(folder, rope_scaling=None),
    "dropped embedding multiplier": lambda folder: _change(folder, embedding_multiplier=None),
    "wrong logits scaling": lambda folder: _change(folder, logits_scaling=7.0),
    "wrong attention multiplier": lambda folder: _change(folder, attention_multiplier=0.02),
    "wrong residual multiplier": lambda folder: _change(folder, residual_multiplier=0.25),
    "wrong norm epsilon": lambda folder: _change(folder, rms_norm_eps=1e-3),
}
"""What is done to the fused folder before it is converted."""
