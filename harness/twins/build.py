"""A miniature's config → its checkpoint in the published layout, and what transformers computes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.checkpoints.child import process_group
from harness.checkpoints.safetensors import shown
from harness.engines.protocol import Logits
from harness.twins.shrink import RESERVED, VOCABULARY

TEXT_TOKENS = (24, 40, 56, 72, 88, 96)
"""Lengths of the test texts, in tokens."""
TIMEOUT_S = 300

_CHILD = Path(__file__).with_name("twin_child.py")


class Reference(NamedTuple):
    """What transformers makes of a miniature."""

    logits: tuple[Logits, ...] | None
    """For each text [tokens, vocabulary]; None where transformers could not build it."""
    problem: str | None
    """Why not, in a clause."""
    unknown: bool
    """True where transformers has no such architecture at all."""
    parameters: int | None


def random_texts(seed: int, lengths: tuple[int, ...] = TEXT_TOKENS) -> list[list[int]]:
    """Texts of random tokens, none of them reserved: every one says something about rope."""
    rng = np.random.default_rng(seed)
    return [rng.integers(RESERVED, VOCABULARY, length).tolist() for length in lengths]


@contextmanager
def reference_process(
    config: dict[str, Any], texts: list[list[int]], work: Path, out: Path, seed: int
) -> Iterator[subprocess.Popen[bytes]]:
    """The child that builds the checkpoint in `out`, gone when the block is left."""
    source = work / "config"
    source.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    (source / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    (work / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    command = [
        sys.executable, "-P", str(_CHILD), str(os.getpid()), str(source),
        str(work / "texts.json"), str(out), str(seed),
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with (
        (work / "reference.log").open("wb") as sink,
        process_group(command, sink, environment) as process,
    ):
        yield process


def read_reference(process: subprocess.Popen[bytes], work: Path, out: Path) -> Reference:
    """Wait for the child and read what it left; its last words where it died."""
    try:
        process.wait(TIMEOUT_S)
        result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    except (subprocess.TimeoutExpired, OSError, ValueError):
        log = (work / "reference.log").read_text(encoding="utf-8", errors="replace")
        last = next((line for line in reversed(log.splitlines()) if line.strip()), "no output")
        return Reference(None, f"its process died: {shown(last, 160)}", False, None)
    problem = result.get("unknown") or result.get("broken")
    if problem is not None:
        return Reference(None, shown(str(problem), 160), "unknown" in result, None)
    with np.load(out / "logits.npz", allow_pickle=False) as arrays:
        logits = tuple(arrays[name] for name in arrays.files)
    (out / "logits.npz").unlink()
    (out / "result.json").unlink()
    return Reference(logits, None, False, int(result["parameters"]))
