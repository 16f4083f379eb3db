"""The reference GGUF converter, of the same llama.cpp release as the runtime that is installed.

llama-cpp-python's source distribution carries llama.cpp with its converter under
vendor/llama.cpp, so both come from one release.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import IO, Any, Literal

from filelock import FileLock

from harness.checkpoints.folder import ModelFolder, check_model_folder
from harness.checkpoints.gguf_failures import explain_failure
from harness.checkpoints.hashing import sha256_of
from harness.checkpoints.pypi import fetch_distribution
from harness.checkpoints.safetensors import shown
from harness.errors import ConversionError, FetchError, ToolMissingError
from harness.records import Record, Scalar

OutType = Literal["f16", "bf16", "f32", "auto"]

SDIST_SHA256: Mapping[str, str] = MappingProxyType(
    {"0.3.36": "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"}
)
"""llama-cpp-python version → SHA-256 of its source distribution; others are only recorded."""

_PACKAGE = "llama-cpp-python"
_RECIPE = 1
_MANIFEST = "harness_manifest.json"
_WANTED_FILES = ("convert_hf_to_gguf.py", "LICENSE")
_WANTED_FOLDERS = (("conversion",), ("gguf-py", "gguf"))
_MAX_BYTES = 100_000_000
_CHILD = Path(__file__).with_name("convert_child.py")
_UNSAFE_SUFFIXES = frozenset({".py", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".so", ".gguf"})
_CODE_KEYS = ("auto_map", "custom_pipelines")


class ConversionInfo(Record):
    """One successful conversion."""

    out_file: Path
    outtype: str
    size_bytes: int
    """Size of the GGUF file; 0 after a dry run."""
    seconds: float
    """Wall time of the converter process."""
    converter: str
    """Its release, e.g. "llama-cpp-python 0.3.36"."""
    warnings: tuple[str, ...]
    """The converter's own warnings, in order, each once."""
    log: str
    """What the converter printed."""


def fetch_converter(cache_dir: Path) -> Path:
    """The folder with convert_hf_to_gguf.py of the installed runtime's release.

    Fetched once into `cache_dir/converter/VERSION`, atomically. Raises ToolMissingError when
    llama-cpp-python is not installed, FetchError when its source cannot be had or is not the
    published file.
    """
    version = _runtime_version()
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


def convert(
    model_dir: Path,
    out_file: Path,
    outtype: OutType = "f16",
    *,
    cache_dir: Path,
    timeout_s: float = 1800,
    dry_run: bool = False,
) -> ConversionInfo:
    """Convert a Hugging Face folder to GGUF in a process of its own.

    The file appears under its name only when complete. The converter sees a view of the folder
    without Python code and pickles, since it trusts a tokenizer's own code. `dry_run` checks
    names and shapes and writes nothing. Raises ModelError (bad folder), ConversionError (with
    the tensor or setting at fault and a fix), FetchError and ToolMissingError.
    """
    model = check_model_folder(model_dir)
    converter = fetch_converter(cache_dir)
    try:
        with _work_folder(out_file, cache_dir) as work:
            if not dry_run:
                _check_space(model, work, outtype)
            partial = work / "model.gguf"
            view = _safe_view(model_dir, work)
            arguments = [str(view), "--outfile", str(partial), "--outtype", outtype]
            if dry_run:
                arguments.append("--dry-run")
            started = time.monotonic()
            log = _run(converter, arguments, work / "log.txt", timeout_s)
            seconds = time.monotonic() - started
            if not dry_run:
                partial.replace(out_file)
    except OSError as error:
        raise ConversionError(
            f"{out_file} could not be written ({error.strerror}); choose a writable folder with "
            "enough free space",
            fix="choose a writable output folder with enough free space",
        ) from error
    return ConversionInfo(
        out_file=out_file,
        outtype=outtype,
        size_bytes=0 if dry_run else out_file.stat().st_size,
        seconds=seconds,
        converter=f"{_PACKAGE} {_runtime_version()}",
        warnings=_warnings(log),
        log=log,
    )


def read_gguf_metadata(path: Path) -> dict[str, Scalar]:
    """What a GGUF file says of itself, without its weights.

    Every scalar key as stored, "tokenizer.chat_template" included; of each array only its
    length, under "KEY.length"; "tensor_count" too. Raises ConversionError when unreadable.
    """
    import gguf

    try:
        reader = gguf.GGUFReader(path)
        found: dict[str, Scalar] = {"tensor_count": len(reader.tensors)}
        for key, field in reader.fields.items():
            if key.startswith("GGUF."):
                continue
            if field.types and field.types[0] == gguf.GGUFValueType.ARRAY:
                found[f"{key}.length"] = len(field.data)
            else:
                found[key] = field.contents()
    except (OSError, ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
        raise ConversionError(
            f"{path} is not a readable GGUF file ({shown(str(error), 80)}); convert it again",
            fix="convert the model again",
        ) from error
    return found


def _runtime_version() -> str:
    try:
        return importlib.metadata.version(_PACKAGE).split("+", 1)[0]
    except importlib.metadata.PackageNotFoundError as error:
        raise ToolMissingError(
            f"{_PACKAGE} is not installed, so there is no GGUF runtime to convert for; "
            f"run `python -m pip install {_PACKAGE}`"
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
        requirement = f"{_PACKAGE}=={version}"
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
                f"{sdist.name} carries no {name} of llama.cpp; install the {_PACKAGE} release "
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


@contextmanager
def _work_folder(out_file: Path, cache_dir: Path) -> Iterator[Path]:
    """A folder beside `out_file`, removed in the end; what a killed conversion left goes first."""
    out_file.parent.mkdir(parents=True, exist_ok=True)
    locks = cache_dir / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(str(out_file.resolve()).encode()).hexdigest()[:16]
    prefix = f".{out_file.name}.{key}."
    with FileLock(locks / f"convert-{key}.lock"):
        for stale in out_file.parent.glob(f"{glob.escape(prefix)}*"):
            shutil.rmtree(stale)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=out_file.parent) as work:
            yield Path(work)


def _check_space(model: ModelFolder, folder: Path, outtype: OutType) -> None:
    needed = model.parameters * (4 if outtype == "f32" else 2)
    free = shutil.disk_usage(folder).free
    if free < needed:
        fix = f"free {(needed - free) / 1e9:.1f} GB more, or choose another output folder"
        raise ConversionError(
            f"the GGUF of {model.path} needs {needed / 1e9:.1f} GB, but {folder} has "
            f"{free / 1e9:.1f} GB free; {fix}",
            fix=fix,
        )


def _safe_view(model_dir: Path, work: Path) -> Path:
    """A folder of links to the model's files, without code, pickles and calls for code.

    The converter loads tokenizers with trust_remote_code=True and falls back to pickles. The
    view keeps the folder's name, from which the converter takes the model's.
    """
    view = work / "view" / (model_dir.resolve().name or "model")
    view.mkdir(parents=True)
    for file in sorted(model_dir.iterdir()):
        if not file.is_file() or file.suffix in _UNSAFE_SUFFIXES:
            continue
        if file.name in ("config.json", "tokenizer_config.json"):
            settings = json.loads(file.read_text(encoding="utf-8"))
            clean = {key: value for key, value in settings.items() if key not in _CODE_KEYS}
            (view / file.name).write_text(json.dumps(clean), encoding="utf-8")
        else:
            (view / file.name).symlink_to(file.resolve())
    return view


def _run(converter: Path, arguments: list[str], log_file: Path, timeout_s: float) -> str:
    """Run the converter to its end and return its log; a failure is a ConversionError."""
    command = [sys.executable, "-P", str(_CHILD), str(os.getpid()), str(converter), *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with log_file.open("wb") as sink, _process_group(command, sink, environment) as process:
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ConversionError(
                f"the GGUF converter was still running after {timeout_s:.0f} s; "
                "try again on a less busy machine",
                fix="try again on a less busy machine",
            ) from error
    log = log_file.read_text(encoding="utf-8", errors="replace")
    if process.returncode != 0:
        raise explain_failure(log, process.returncode)
    return log


@contextmanager
def _process_group(
    command: list[str], sink: IO[bytes], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A child in its own process group, which is gone when the block is left."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sink,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _warnings(log: str) -> tuple[str, ...]:
    found: dict[str, Any] = {}
    for line in log.splitlines():
        if line.startswith("WARNING:"):
            text = line.split(":", 2)[-1].strip(" *")
            if text:
                found[shown(text, 200)] = None
    return tuple(found)
