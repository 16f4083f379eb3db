"""The machine: what it is, how much a model may use of it, and what makes MLX fast on it.

On Linux the MLX wheel calls a reference BLAS that is some thirty times slower than an optimised
one. Preloading a library that exports the same `sgemm_` mends that, and is done only in the
environment of worker processes, never in the user's shell.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import platformdirs

import harness
from harness.errors import UsageError
from harness.records import Record

GB = 1e9
"""Bytes in a GB, everywhere in the harness."""

LIBRARIES = Path("/usr/lib")
"""Where Debian and its kin have their multi-arch folders."""

_WORKING_SHARES = (2 / 3, 0.74)

CHECKOUT = Path(__file__).parents[1]
PACKAGES = ("mlx", "mlx-lm", "llama-cpp-python", "torch", "transformers")

BlasKind: TypeAlias = Literal["accelerate", "openblas", "torch", "none"]


class MachineFacts(Record):
    """What a result depends on, and nothing that identifies the person."""

    os: str
    """E.g. "Linux 6.8" or "macOS 15.5"."""
    architecture: str
    """E.g. "arm64", "x86_64"."""
    chip: str
    """CPU name, e.g. "Apple M4"."""
    cores: int
    """Logical cores this process may use."""
    memory_gb: float
    """Memory this process may use (a container's limit included), GB."""
    metal_working_set_gb: float | None
    """What Metal recommends not to exceed, GB; None where there is no Metal."""
    packages: dict[str, str]
    """Versions of the engines and of the harness; a missing package is left out."""
    git_commit: str | None
    """Commit of the harness itself, where it runs from a checkout."""
    git_dirty: bool | None


def machine_facts() -> MachineFacts:
    """Look at this machine. Imports mlx on a Mac only, to ask Metal."""
    commit, dirty = _git_state(CHECKOUT)
    return MachineFacts(
        os=_os_name(),
        architecture=platform.machine(),
        chip=_chip_name(),
        cores=_cores(),
        memory_gb=round(memory_gb(), 2),
        metal_working_set_gb=metal_working_set_gb(),
        packages=package_versions(),
        git_commit=commit,
        git_dirty=dirty,
    )


def cache_root() -> Path:
    """Where downloads and converted models are kept; HARNESS_CACHE overrides it."""
    override = os.environ.get("HARNESS_CACHE")
    if override:
        return Path(override).expanduser().absolute()
    return platformdirs.user_cache_path("finetune-harness")


def memory_gb() -> float:
    """Memory this process may use, GB: the physical memory or the container's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = Path(file).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdigit():
            total = min(total, int(limit))
    return total / GB


@functools.cache
def metal_working_set_gb() -> float | None:
    """Metal's recommended working set in GB, or None where there is no Metal."""
    if sys.platform != "darwin" or importlib.util.find_spec("mlx") is None:
        return None
    import mlx.core as mx

    if not mx.metal.is_available():
        return None
    ask = getattr(mx, "device_info", None) or mx.metal.device_info
    size = ask().get("max_recommended_working_set_size")
    return round(float(size) / GB, 3) if size else None


def working_set_gb(memory_gb: float) -> tuple[float, float]:
    """How much of a Mac's memory Metal lets one program use: its lower and higher figure, GB.

    On a Mac, Metal's own figure, twice. Elsewhere that of a Mac with `memory_gb` of memory (as
    sold, so 16 is 16 GiB): 66.7 % on older macOS and chips, 74 % on recent ones. A 16 GB Mac
    reports 11.453 GB (M2) to 12.713 GB (M4) as recommendedMaxWorkingSetSize in llama.cpp's logs.
    """
    metal = metal_working_set_gb()
    if metal is not None:
        return metal, metal
    size_gb = memory_gb * 2**30 / GB
    return round(size_gb * _WORKING_SHARES[0], 3), round(size_gb * _WORKING_SHARES[1], 3)


def package_versions() -> dict[str, str]:
    """Installed versions of the engines and of the harness."""
    versions = {"harness": harness.__version__}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def worker_environment() -> dict[str, str]:
    """What to add to the environment of a process that runs MLX.

    Raises:
        UsageError: HARNESS_BLAS asks for something unknown or absent.
    """
    extra = {"TOKENIZERS_PARALLELISM": "false"}
    _, library, _ = blas_choice()
    if library is not None:
        present = os.environ.get("LD_PRELOAD", "").replace(" ", ":").split(":")
        kept = [entry for entry in present if entry and entry != str(library)]
        extra["LD_PRELOAD"] = ":".join([*kept, str(library)])
        # By default OpenMP threads spin while they wait, and two busy processes on two cores
        # become thirty times slower. A short spin costs nothing and then lets the other work.
        extra["GOMP_SPINCOUNT"] = os.environ.get("GOMP_SPINCOUNT", "500")
    return extra


def blas_choice(asked: str | None = None) -> tuple[BlasKind, Path | None, str]:
    """Which BLAS an MLX worker gets: its kind, the library to preload, and a sentence.

    `asked` is "none", "openblas", "torch", or "" for the best there is; None takes it from
    HARNESS_BLAS.

    Raises:
        UsageError: it asks for something unknown or absent.
    """
    return _choose_blas(os.environ.get("HARNESS_BLAS", "") if asked is None else asked)


@functools.cache
def _choose_blas(asked: str) -> tuple[BlasKind, Path | None, str]:
    if asked not in ("", "none", *_FINDERS):
        raise UsageError(f"HARNESS_BLAS is {asked!r}; use none, {' or '.join(_FINDERS)}.")
    if sys.platform != "linux":
        return "accelerate", None, "MLX uses this system's own BLAS; nothing is preloaded."
    if asked == "none":
        return "none", None, "HARNESS_BLAS=none: MLX uses the reference BLAS of its wheel."
    for kind, (find, title) in _FINDERS.items():
        if asked in ("", kind):
            library = next((path for path in find() if exports_blas(path)), None)
            if library is not None:
                return kind, library, f"{title} is preloaded into MLX workers ({library.name})."
    if asked:
        raise UsageError(
            f"HARNESS_BLAS={asked}, but no such library loads on this machine; unset it or "
            "see `harness doctor`."
        )
    return "none", None, "No fast BLAS was found, so MLX uses the reference BLAS of its wheel."


def _openblas_libraries() -> Sequence[Path]:
    """Debian's OpenBLAS in the multi-arch folders; pthread before OpenMP, as apt suggests it."""
    return [
        path
        for flavour in ("openblas-pthread", "openblas-openmp")
        for path in sorted(LIBRARIES.glob(f"*/{flavour}/libblas.so.3"))
    ]


def _torch_libraries() -> Sequence[Path]:
    # find_spec and not import: torch takes seconds and memory that nobody here needs.
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return []
    library = Path(spec.origin).parent / "lib" / "libtorch_cpu.so"
    return [library] if library.is_file() else []


_FINDERS: dict[BlasKind, tuple[Callable[[], Sequence[Path]], str]] = {
    "openblas": (_openblas_libraries, "Debian's OpenBLAS"),
    "torch": (_torch_libraries, "The BLAS inside torch"),
}
"""In order of preference."""


def exports_blas(library: Path) -> bool:
    """Whether a process starts with `library` preloaded and finds `sgemm_` in it.

    Tried in a child, since a library with a missing dependency keeps a process from starting.
    """
    probe = "import ctypes; ctypes.CDLL(None).sgemm_"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", probe],
            env={**os.environ, "LD_PRELOAD": str(library)},
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _os_name() -> str:
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    return f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"


def _chip_name() -> str:
    if sys.platform == "darwin":
        return _output_of(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.machine()
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        info = ""
    for line in info.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("model name", "hardware") and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Commit and dirty flag, only where `folder` itself is the top of the checkout.

    A harness installed inside some other repository must not report that one's commit.
    """
    top = _output_of(["git", "-C", str(folder), "rev-parse", "--show-toplevel"])
    if top is None or Path(top).resolve() != folder.resolve():
        return None, None
    commit = _output_of(["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", "HEAD"])
    if not commit:
        return None, None
    changes = _output_of(["git", "--no-optional-locks", "-C", str(folder), "status", "--porcelain"])
    return commit, None if changes is None else bool(changes)


def _output_of(command: list[str]) -> str | None:
    """Stripped stdout of a command, or None where it is missing, fails or takes over 10 s."""
    try:
        # A preloaded BLAS would be loaded into git as well, and cost more than git itself.
        plain = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=False, env=plain
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
