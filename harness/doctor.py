"""What this machine can do, measured, and how to mend what it can't.

Pure data: the command line renders it. Everything that could crash or is slow to import is
tried in a child process, so that a broken installation is a finding and not a traceback.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import machine
from harness.checkpoints.embedded import MANIFEST
from harness.errors import RegistryError, UsageError
from harness.records import Record
from harness.registry import WheelSource, load_registry
from harness.sources import hub_problem

CACHE_NEEDS_GB = 3.0
"""The embedded model, its GGUF, the converter and a fused model, with room to work."""

OUTPUT_NEEDS_GB = 0.1

MODULES = {
    "mlx": "mlx.core",
    "mlx-lm": "mlx_lm",
    "llama-cpp-python": "llama_cpp",
    "torch": "torch",
}
"""Distribution → module whose import is tried."""

IMPORT_TIMEOUT_S = 120

COSTS = {
    "mlx": "no model can be loaded, trained or compared",
    "mlx-lm": "no model can be loaded, trained or compared",
    "llama-cpp-python": "the gguf gate cannot run, so a broken GGUF is found in LM Studio only",
    "torch": "the GGUF converter cannot run, and on Linux MLX loses its fast BLAS",
}

_MATMUL = """
import sys, time
import mlx.core as mx
mx.set_default_device(mx.cpu)
n, seconds = int(sys.argv[1]), float(sys.argv[2])
a, b = mx.random.normal((n, n)), mx.random.normal((n, n))
mx.eval(a, b, a @ b)
start, rounds = time.perf_counter(), 0
while time.perf_counter() - start < seconds:
    mx.eval(a @ b)
    rounds += 1
print(2 * n**3 * rounds / (time.perf_counter() - start) / 1e9)
"""
"""float32 matrix product as MLX does it; prints GFLOP/s."""


class Check(Record):
    """One thing the doctor looked at."""

    name: str
    ok: bool | None
    """None: nothing is wrong, but it is absent or does not apply here."""
    found: str
    cost: str = ""
    """What its absence or presence costs, with measured figures where there are any."""
    fix: str | None = None
    """A command (or an edit) that mends it; always there when `ok` is False."""


def examine(
    *,
    reports_dir: Path = Path("reports"),
    cache_dir: Path | None = None,
    registry: Path | None = None,
) -> tuple[Check, ...]:
    """Examine this machine; takes some seconds, changes nothing.

    Args:
        reports_dir: where reports will be written; need not exist.
        cache_dir: the harness's cache, None = `cache_root()`.
        registry: the registry file, None = the one of this checkout.
    """
    cache = cache_dir or machine.cache_root()
    blas = check_blas()  # alone, since the imports would disturb the measurement
    with ThreadPoolExecutor() as pool:
        imports = pool.map(check_import, MODULES)
        hub = pool.submit(check_hub)
        return (
            check_python(),
            *imports,
            blas,
            check_memory(),
            check_metal(),
            *check_registry(cache, registry),
            check_converter(cache),
            hub.result(),
            check_folder("cache folder", cache, CACHE_NEEDS_GB, "set HARNESS_CACHE to"),
            check_folder("output folder", reports_dir, OUTPUT_NEEDS_GB, "give --output-dir"),
        )


def check_python() -> Check:
    """Whether this Python is one the harness supports."""
    return Check(
        name="Python",
        ok=sys.version_info >= (3, 11),
        found=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        cost="" if sys.version_info >= (3, 11) else "the harness needs Python 3.11 or newer",
        fix=None if sys.version_info >= (3, 11) else "python3.12 -m venv .venv",
    )


def check_import(package: str) -> Check:
    """Whether one of MODULES is installed and its import works, tried in a child process."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return Check(
            name=package,
            ok=False,
            found="not installed",
            cost=COSTS[package],
            fix=f"python -m pip install {_requirement(package)}",
        )
    problem = import_problem(MODULES[package])
    if problem is None:
        return Check(name=package, ok=True, found=version)
    return Check(
        name=package,
        ok=False,
        found=f"{version} is installed, but its import fails: {problem}",
        cost=COSTS[package],
        fix=f"python -m pip install --force-reinstall --no-deps {package}=={version}",
    )


def import_problem(module: str) -> str | None:
    """Why `import module` fails in a fresh process, in one line; None where it works."""
    try:
        done = _child(f"import {module}", [], os.environ, IMPORT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"it takes longer than {IMPORT_TIMEOUT_S} s"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"the process was killed by {signal.Signals(-done.returncode).name}"
    return (done.stderr.strip().splitlines() or ["it ended without a message"])[-1][:300]


def check_blas() -> Check:
    """Which BLAS MLX workers get, and how fast it is beside the wheel's own, measured."""
    try:
        kind, library, sentence = machine.blas_choice()
        best = library or machine.blas_choice("")[1]
    except UsageError as error:
        return Check(
            name="BLAS",
            ok=False,
            found=str(error),
            cost="no worker starts",
            fix="unset HARNESS_BLAS",
        )
    if kind == "accelerate":
        return Check(name="BLAS", ok=True, found=sentence)
    plain = measure_matmul(None)
    fast = measure_matmul(best) if best is not None else None
    if plain is None:
        return Check(
            name="BLAS",
            ok=None,
            found=f"{sentence} It could not be measured, since MLX does not run.",
            fix=f"python -m pip install {_requirement('mlx')}",
        )
    if fast is None:
        return Check(
            name="BLAS",
            ok=False,
            found=f"{sentence} It does {plain:.1f} GFLOP/s.",
            cost="an optimised BLAS is usually tens of times faster; every answer waits for it",
            fix=f"python -m pip install {_requirement('torch')}",
        )
    ratio = f"{fast / plain:.0f}×" if fast > 3 * plain else f"{fast / plain:.1f}×"
    if library is None:
        return Check(
            name="BLAS",
            ok=False,
            found=f"{sentence} It does {plain:.1f} GFLOP/s; {best} would do {fast:.0f}.",
            cost=f"matrix products take {ratio} as long as they need to",
            fix="unset HARNESS_BLAS",
        )
    return Check(
        name="BLAS",
        ok=True,
        found=f"{sentence} It does {fast:.0f} GFLOP/s, the wheel's own {plain:.1f}.",
        cost=f"without it matrix products would take {ratio} as long",
    )


def measure_matmul(library: Path | None, *, n: int = 512, seconds: float = 0.4) -> float | None:
    """GFLOP/s of MLX's float32 n×n product on the CPU with `library` preloaded (None = nothing).

    Measured in a child process for about `seconds`; None where MLX does not run there.
    """
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    if library is not None:
        environment["LD_PRELOAD"] = str(library)
    try:
        done = _child(_MATMUL, [str(n), str(seconds)], environment, IMPORT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None
    return float(done.stdout) if done.returncode == 0 else None


def check_memory() -> Check:
    """How much memory there is for a model."""
    gb = machine.memory_gb()
    enough = gb >= 8
    return Check(
        name="memory",
        ok=enough,
        found=f"{gb:.1f} GB",
        cost="" if enough else "only models of about 1B can be looked at whole",
        fix=None if enough else "harness vet --depth twin",
    )


def check_metal() -> Check:
    """Metal's recommended working set, the budget on a Mac."""
    working_set = machine.metal_working_set_gb()
    if working_set is None:
        return Check(
            name="Metal working set",
            ok=None,
            found="no Metal on this machine",
            cost="memory is judged against a Mac with each candidate's memory_budget_gb",
        )
    return Check(name="Metal working set", ok=True, found=f"{working_set:.1f} GB")


def check_registry(cache: Path, registry: Path | None) -> Iterator[Check]:
    """Whether the registry can be read, and whether its wheel models are converted already."""
    try:
        loaded = load_registry(registry)
    except RegistryError as error:
        yield Check(
            name="registry",
            ok=False,
            found=str(error),
            cost="no candidate can be named",
            fix="mend that line, or name another file with --registry",
        )
        return
    yield Check(name="registry", ok=True, found=f"{len(loaded.candidates)} candidates")
    for candidate in loaded.candidates:
        if not isinstance(candidate.source, WheelSource):
            continue
        there = (cache / "models" / candidate.name / MANIFEST).is_file()
        yield Check(
            name=candidate.name,
            ok=True if there else None,
            found="in the cache" if there else "not fetched yet",
            cost="" if there else f"its first use fetches {candidate.source.requirement}",
            fix=None if there else f"harness vet {candidate.name}",
        )


def check_converter(cache: Path) -> Check:
    """Whether the reference GGUF converter of the installed runtime is in the cache."""
    version = machine.package_versions().get("llama-cpp-python", "none")
    there = (cache / "converter" / version / "convert_hf_to_gguf.py").is_file()
    return Check(
        name="GGUF converter",
        ok=True if there else None,
        found=f"in the cache, of llama-cpp-python {version}" if there else "not fetched yet",
        cost="" if there else "its first use fetches the source of llama-cpp-python",
        fix=None if there else "harness vet smollm2-135m-instruct",
    )


def check_hub() -> Check:
    """Whether the Hugging Face Hub answers."""
    problem = hub_problem()
    if problem is None:
        return Check(name="Hugging Face Hub", ok=True, found="it answers")
    return Check(
        name="Hugging Face Hub",
        ok=None,
        found=problem.reason,
        cost="candidates from the Hub that are not in its cache come out NOT_RUN",
        fix=problem.fix,
    )


def check_folder(name: str, folder: Path, needs_gb: float, instead: str) -> Check:
    """Whether a folder can be written to and its disk has room; makes nothing that stays."""
    absolute = folder.expanduser().absolute()
    existing = next(one for one in (absolute, *absolute.parents) if one.exists())
    fix = f"{instead} a folder that you may write to"
    try:
        with tempfile.TemporaryFile(dir=existing):
            free_gb = shutil.disk_usage(existing).free / machine.GB
    except OSError as error:
        return Check(
            name=name,
            ok=False,
            found=f"{absolute} cannot be written to: {error.strerror or error}",
            cost="nothing that is computed could be kept",
            fix=fix,
        )
    roomy = free_gb >= needs_gb
    return Check(
        name=name,
        ok=roomy,
        found=f"{absolute}, {free_gb:.1f} GB free",
        cost="" if roomy else f"about {needs_gb:g} GB are needed",
        fix=None if roomy else f"{instead} a folder on a disk with {needs_gb:g} GB free",
    )


def _requirement(package: str) -> str:
    """What to give pip: the harness's own requirement of it where the metadata is there."""
    try:
        declared = importlib.metadata.requires("finetune-harness") or []
    except importlib.metadata.PackageNotFoundError:
        declared = []
    for line in declared:
        text, _, marker = line.partition(";")
        elsewhere = "sys_platform" in marker and f'"{sys.platform}"' not in marker
        name = re.match(r"[A-Za-z0-9._-]+", text)
        if name is not None and name.group() == package and not elsewhere:
            return f"'{text.strip()}'"
    return package


def _child(
    script: str, arguments: list[str], environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    # -P: a torch.py in the current folder is not torch.
    return subprocess.run(
        [sys.executable, "-P", "-c", script, *arguments],
        env=dict(environment),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )
