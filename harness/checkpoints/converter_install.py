"""Fetching the reference GGUF converter, of the same llama.cpp release as the installed runtime.

llama-cpp-python's source distribution carries llama.cpp with its converter under
vendor/llama.cpp, so both come from one release.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from filelock import FileLock

from harness.checkpoints.hashing import sha256_of
from harness.checkpoints.pypi import fetch_distribution
from harness.errors import FetchError, ToolMissingError

PACKAGE = "llama-cpp-python"

SDIST_SHA256: Mapping[str, str] = MappingProxyType(
    {"0.3.36": "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"}
)
"""llama-cpp-python version → SHA-256 of its source distribution; others are only recorded."""

_RECIPE = 1
_MANIFEST = "harness_manifest.json"
_WANTED_FILES = ("convert_hf_to_gguf.py", "LICENSE")
_WANTED_FOLDERS = (("conversion",), ("gguf-py", "gguf"))
_MAX_BYTES = 100_000_000


def fetch_converter(cache_dir: Path) -> Path:
    """The folder with convert_hf_to_gguf.py of the installed runtime's release.

    Fetched once into `cache_dir/converter/VERSION`, atomically. Raises ToolMissingError when
    llama-cpp-python is not installed, FetchError when its source cannot be had or is not the
    published file.
    """
    version = runtime_version()
    folder = cache_dir / "converter" / version
    if _is_complete(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{version}.lock"):
            if not _is_complete(folder):
                _install(version, folder)
    except OSError as error:
        raise FetchError(
            f"the GGUF converter could not be written to {folder} ({error}); free space there or "
            "set HARNESS_CACHE to a writable folder"
        ) from error
    return folder


def known_classes(folder: Path) -> tuple[frozenset[str], frozenset[str]]:
    """The class names that a converter knows: of language models, and of vision or audio parts.

    Read from its source without running it. Raises FetchError where that is not as expected.
    """
    maps = {"TEXT_MODEL_MAP": frozenset[str](), "MMPROJ_MODEL_MAP": frozenset[str]()}
    file = folder / "conversion" / "__init__.py"
    try:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            if node.target.id in maps and node.value is not None:
                maps[node.target.id] = frozenset(ast.literal_eval(node.value))
    except (OSError, ValueError, SyntaxError) as error:
        raise FetchError(f"{file} cannot be read; remove its folder and try again") from error
    return maps["TEXT_MODEL_MAP"], maps["MMPROJ_MODEL_MAP"]


def runtime_version() -> str:
    """Version of the installed llama-cpp-python; ToolMissingError where it is not installed."""
    try:
        return importlib.metadata.version(PACKAGE).split("+", 1)[0]
    except importlib.metadata.PackageNotFoundError as error:
        raise ToolMissingError(
            f"{PACKAGE} is not installed, so there is no GGUF runtime to convert for; "
            f"run `python -m pip install {PACKAGE}`"
        ) from error


def _is_complete(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        isinstance(manifest, dict)
        and manifest.get("recipe") == _RECIPE
        and (folder / _WANTED_FILES[0]).is_file()
    )


def _install(version: str, folder: Path) -> None:
    """Fetch, extract, rename. The caller holds the lock."""
    for stale in folder.parent.glob(f".{version}.*.partial"):
        shutil.rmtree(stale)
    work = Path(tempfile.mkdtemp(prefix=f".{version}.", suffix=".partial", dir=folder.parent))
    try:
        download, built = work / "download", work / "converter"
        download.mkdir()
        built.mkdir()
        requirement = f"{PACKAGE}=={version}"
        sdist = fetch_distribution(requirement, "sdist", download, SDIST_SHA256.get(version))
        _extract(sdist, built)
        manifest = {"recipe": _RECIPE, "source": requirement, "source_sha256": sha256_of(sdist)}
        (built / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        if folder.exists():
            folder.rename(work / "replaced")
        built.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _extract(sdist: Path, dest: Path) -> None:
    """Take the converter's files out of the archive; nothing else, and nothing outside `dest`."""
    taken = 0
    try:
        with tarfile.open(sdist, "r:gz") as archive:
            for member in archive:
                inner = _wanted(member)
                source = archive.extractfile(member) if inner else None
                if inner is None or source is None:
                    continue
                taken += member.size
                if taken > _MAX_BYTES:
                    raise FetchError(f"{sdist.name} unpacks to an absurd size; do not trust it")
                target = dest.joinpath(*inner)
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise FetchError(f"{sdist.name} is not a readable archive; fetch it again") from error
    for name in (*_WANTED_FILES, "conversion", "gguf-py"):
        if not (dest / name).exists():
            raise FetchError(
                f"{sdist.name} carries no {name} of llama.cpp; install the {PACKAGE} release "
                f"{', '.join(SDIST_SHA256)}, which does"
            )


def _wanted(member: tarfile.TarInfo) -> tuple[str, ...] | None:
    """The path below vendor/llama.cpp of a file that the converter needs, else None."""
    parts = PurePosixPath(member.name).parts
    if not member.isreg() or parts[1:3] != ("vendor", "llama.cpp") or ".." in parts:
        return None
    inner = parts[3:]
    if inner in {(name,) for name in _WANTED_FILES}:
        return inner
    for folder in _WANTED_FOLDERS:
        if inner[: len(folder)] == folder and len(inner) > len(folder):
            return inner
    return None
