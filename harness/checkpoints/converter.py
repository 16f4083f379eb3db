"""Running the reference GGUF converter, in a process of its own.

Several folders may share one process (`convert_all`), since importing torch takes most of the
time of a small conversion.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from filelock import FileLock

from harness.checkpoints.child import process_group
from harness.checkpoints.converter_install import PACKAGE, fetch_converter, runtime_version
from harness.checkpoints.folder import ModelFolder, check_model_folder, check_tokenizer_folder
from harness.checkpoints.gguf_failures import explain_failure
from harness.checkpoints.safetensors import shown
from harness.errors import ConversionError, ModelError
from harness.records import Record, Scalar

OutType: TypeAlias = Literal["f16", "bf16", "f32", "auto"]

Mode: TypeAlias = Literal["write", "dry_run", "vocabulary_only"]
"""Write the whole file, check names and shapes and write nothing, or write a file that holds
the hyper-parameters and the vocabulary but no tensors."""

Vocabulary: TypeAlias = Literal["real", "none"]
"""The folder's own tokenizer, or a vocabulary without tokens, which needs no tokenizer files."""

_CHILD = Path(__file__).with_name("convert_child.py")
_UNSAFE_SUFFIXES = frozenset({".py", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".so", ".gguf"})
_CODE_KEYS = ("auto_map", "custom_pipelines")
_POLL_S = 0.2


class ConversionJob(Record):
    """One folder to convert."""

    model_dir: Path
    out_file: Path
    outtype: OutType = "f16"
    mode: Mode = "write"
    vocabulary: Vocabulary = "real"


class ConversionInfo(Record):
    """One successful conversion."""

    out_file: Path
    outtype: str
    size_bytes: int
    """Size of the GGUF file; 0 after a dry run."""
    seconds: float
    """Wall time of the converter, without the start of its process except for the first job."""
    converter: str
    """Its release, e.g. "llama-cpp-python 0.3.36"."""
    warnings: tuple[str, ...]
    """The converter's own warnings, in order, each once."""
    log: str
    """What the converter printed."""


def convert(
    model_dir: Path,
    out_file: Path,
    outtype: OutType = "f16",
    *,
    cache_dir: Path,
    timeout_s: float = 1800,
    mode: Mode = "write",
    vocabulary: Vocabulary = "real",
) -> ConversionInfo:
    """Convert a Hugging Face folder to GGUF in a process of its own.

    The file appears under its name only when complete. The converter sees a view of the folder
    without Python code and pickles, since it trusts a tokenizer's own code. Raises ModelError
    (bad folder), ConversionError (with the tensor or setting at fault and a fix), FetchError and
    ToolMissingError.
    """
    job = ConversionJob(
        model_dir=model_dir, out_file=out_file, outtype=outtype, mode=mode, vocabulary=vocabulary
    )
    checked = [(job, _check(job))]
    (outcome,) = _convert_checked(checked, cache_dir, timeout_s)
    if isinstance(outcome, ConversionError):
        raise outcome
    return outcome


def convert_all(
    jobs: Sequence[ConversionJob], *, cache_dir: Path, timeout_s: float = 1800
) -> list[ConversionInfo | ConversionError]:
    """Convert several folders in one process, each succeeding or failing on its own.

    The outcomes are in the order of the jobs; a folder that is no good is a ConversionError too.
    Each job has `timeout_s` seconds. The jobs need different output files. Raises FetchError and
    ToolMissingError.
    """
    outcomes: dict[int, ConversionInfo | ConversionError] = {}
    checked: dict[int, tuple[ConversionJob, ModelFolder | None]] = {}
    for number, job in enumerate(jobs):
        try:
            checked[number] = (job, _check(job))
        except ModelError as error:
            outcomes[number] = ConversionError(str(error))
    if checked:
        ended = _convert_checked(list(checked.values()), cache_dir, timeout_s)
        outcomes |= dict(zip(checked, ended, strict=True))
    return [outcomes[number] for number in range(len(jobs))]


def _check(job: ConversionJob) -> ModelFolder | None:
    """The checked folder; None where no weights are looked at. Raises ModelError."""
    if job.mode == "vocabulary_only":
        if job.vocabulary == "none":
            raise ValueError("a vocabulary-only file without a vocabulary holds nothing")
        check_tokenizer_folder(job.model_dir)
        return None
    return check_model_folder(job.model_dir, tokenizer=job.vocabulary == "real")


class _Run(NamedTuple):
    """A job on its way through the converter, with the files of its work folder."""

    job: ConversionJob
    work: Path
    error: ConversionError | None = None
    """Why it cannot be started."""

    @property
    def log(self) -> Path:
        return self.work / "log.txt"

    @property
    def result(self) -> Path:
        return self.work / "result.json"

    @property
    def partial(self) -> Path:
        return self.work / "model.gguf"


def _convert_checked(
    checked: Sequence[tuple[ConversionJob, ModelFolder | None]], cache_dir: Path, timeout_s: float
) -> list[ConversionInfo | ConversionError]:
    converter = fetch_converter(cache_dir)
    with ExitStack() as stack:
        runs: dict[Path, _Run] = {}
        # In the order of the names, so that two callers never wait for each other's locks.
        for job, model in sorted(checked, key=lambda pair: str(pair[0].out_file)):
            try:
                work = stack.enter_context(_work_folder(job.out_file, cache_dir))
                runs[job.out_file] = _prepare(job, model, work)
            except OSError as error:
                runs[job.out_file] = _Run(job, Path(), _unwritable(job.out_file, error))
        ready = [runs[job.out_file] for job, _ in checked if runs[job.out_file].error is None]
        broken = _run_all(converter, ready, timeout_s)
        return [_outcome(runs[job.out_file], broken) for job, _ in checked]


def _prepare(job: ConversionJob, model: ModelFolder | None, work: Path) -> _Run:
    """The view that the converter will see; an error where the disk is too small."""
    if model is not None and job.mode == "write":
        try:
            _check_space(model, work, job.outtype)
        except ConversionError as error:
            return _Run(job, work, error)
    _safe_view(job, work)
    return _Run(job, work)


def _run_all(
    converter: Path, runs: Sequence[_Run], timeout_s: float
) -> dict[Path, ConversionError]:
    """Run the jobs until each has a result or broke its process.

    Returns the errors of those that broke it, by output file; the jobs after them go on in a
    process of their own.
    """
    broken: dict[Path, ConversionError] = {}
    while left := [r for r in runs if r.job.out_file not in broken and not r.result.exists()]:
        try:
            status = _run_process(converter, left, timeout_s)
        except OSError as error:
            return broken | {r.job.out_file: _unwritable(r.job.out_file, error) for r in left}
        culprit = next((run for run in left if not run.result.exists()), None)
        if culprit is not None:
            broken[culprit.job.out_file] = (
                _late(timeout_s) if status is None else explain_failure(_read_log(culprit), status)
            )
    return broken


def _late(timeout_s: float) -> ConversionError:
    fix = "try again on a less busy machine"
    message = f"the GGUF converter was still running after {timeout_s:.0f} s; {fix}"
    return ConversionError(message, fix=fix, machine=True)


def _read_log(run: _Run) -> str:
    return run.log.read_text(encoding="utf-8", errors="replace") if run.log.exists() else ""


def _run_process(converter: Path, runs: Sequence[_Run], timeout_s: float) -> int | None:
    """Exit status of the converter's process; None where a job took longer than `timeout_s`."""
    jobs_file = runs[0].work / "jobs.json"
    jobs = [
        {
            "arguments": _arguments(run),
            "vocabulary": run.job.vocabulary,
            "writes": run.job.mode == "write",
            "log": str(run.log),
            "result": str(run.result),
        }
        for run in runs
    ]
    jobs_file.write_text(json.dumps(jobs), encoding="utf-8")
    own = [sys.executable, "-P", str(_CHILD), str(os.getpid()), str(converter), str(jobs_file)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    if all(run.job.mode != "write" for run in runs):
        # There is nothing to compute, and each thread would take its share of the memory.
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with runs[0].log.open("ab") as sink, process_group(own, sink, environment) as process:
        ended, since = 0, time.monotonic()
        while True:
            try:
                return process.wait(min(_POLL_S, timeout_s))
            except subprocess.TimeoutExpired:
                now = sum(run.result.exists() for run in runs)
                if now > ended:
                    ended, since = now, time.monotonic()
                elif time.monotonic() - since > timeout_s:
                    return None


def _arguments(run: _Run) -> list[str]:
    view = next((run.work / "view").iterdir())
    arguments = [str(view), "--outfile", str(run.partial), "--outtype", run.job.outtype]
    flags = {"write": [], "dry_run": ["--dry-run"], "vocabulary_only": ["--vocab-only"]}
    return arguments + flags[run.job.mode]


def _outcome(run: _Run, broken: dict[Path, ConversionError]) -> ConversionInfo | ConversionError:
    """What came of a job; its file, if any, moves to where it belongs."""
    job = run.job
    error = run.error or broken.get(job.out_file)
    if error is not None:
        return error
    log = _read_log(run)
    result = json.loads(run.result.read_text(encoding="utf-8"))
    if result["code"] != 0:
        return explain_failure(log, result["code"])
    try:
        if job.mode != "dry_run":
            run.partial.replace(job.out_file)
    except OSError as unwritten:
        return _unwritable(job.out_file, unwritten)
    return ConversionInfo(
        out_file=job.out_file,
        outtype=job.outtype,
        size_bytes=0 if job.mode == "dry_run" else job.out_file.stat().st_size,
        seconds=result["seconds"],
        converter=f"{PACKAGE} {runtime_version()}",
        warnings=_warnings(log),
        log=log,
    )


def _unwritable(out_file: Path, error: OSError) -> ConversionError:
    fix = "choose a writable output folder with enough free space"
    message = f"{out_file} could not be written ({error.strerror}); {fix}"
    return ConversionError(message, fix=fix, machine=True)


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
            machine=True,
        )


def _safe_view(job: ConversionJob, work: Path) -> Path:
    """A folder of links to the model's files, without code, pickles and calls for code.

    The converter loads tokenizers with trust_remote_code=True and falls back to pickles. The
    view keeps the folder's name, from which the converter takes the model's.
    """
    view = work / "view" / (job.model_dir.resolve().name or "model")
    view.mkdir(parents=True)
    for file in sorted(job.model_dir.iterdir()):
        if not file.is_file() or file.suffix in _UNSAFE_SUFFIXES:
            continue
        if job.mode == "vocabulary_only" and file.name.startswith("model"):
            continue  # the weights, which may be missing or wrong without harm here
        if file.name in ("config.json", "tokenizer_config.json"):
            settings = json.loads(file.read_text(encoding="utf-8"))
            clean = {key: value for key, value in settings.items() if key not in _CODE_KEYS}
            (view / file.name).write_text(json.dumps(clean), encoding="utf-8")
        else:
            (view / file.name).symlink_to(file.resolve())
    if job.vocabulary == "none" and not (view / "tokenizer.model").exists():
        # Gemma 3's class asks whether this file is there before it asks what is in it.
        (view / "tokenizer.model").touch()
    return view


def _warnings(log: str) -> tuple[str, ...]:
    found: dict[str, Any] = {}
    for line in log.splitlines():
        if line.startswith("WARNING:"):
            text = line.split(":", 2)[-1].strip(" *")
            if text:
                found[shown(text, 200)] = None
    return tuple(found)
