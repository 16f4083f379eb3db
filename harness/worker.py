"""What runs inside a worker process: one loaded model, asked by one task after the other."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
from multiprocessing import parent_process
from pathlib import Path
from typing import NamedTuple

from harness.engines import open_engine
from harness.engines.protocol import Engine
from harness.errors import FetchError, ToolMissingError
from harness.evidence import EvidenceFile
from harness.gates import GATES, GateContext, Tools
from harness.records import Answered, Depth, Observation, ProbeSet, Subject
from harness.transcripts import read_transcript, transcribe, transcript_file


class _Loaded(NamedTuple):
    engine: Engine
    model: Path
    adapter: Path | None


_loaded: _Loaded | None = None
# The process's one model; adapters are swapped in and out of it.


def start(log: Path) -> None:
    """First thing in a worker: output to the log, and no life after the parent's death."""
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the orchestrator's to handle
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: object) -> None:
    parent.join()  # type: ignore[attr-defined]
    os._exit(1)


def ready() -> int:
    """A task that does nothing but prove that the process lives; its process id."""
    return os.getpid()


def load_subject(subject: Subject) -> Engine:
    """The subject in this process's engine, reusing the weights if they are already there."""
    global _loaded
    if _loaded is None or (_loaded.engine.name, _loaded.model) != (subject.engine, subject.model):
        if _loaded is not None:
            _loaded.engine.close()
        _loaded = _Loaded(open_engine(subject.engine, subject.model), subject.model, None)
    if _loaded.adapter != subject.adapter:
        _loaded = _loaded._replace(adapter=None)  # what a refused adapter leaves behind
        _loaded.engine.use_adapter(subject.adapter)
        _loaded = _loaded._replace(adapter=subject.adapter)
    return _loaded.engine


def run_transcript(subject: Subject, suite: ProbeSet, folder: Path) -> str:
    """Ask what is still unasked; returns the evidence file's name."""
    evidence = transcript_file(folder, subject, suite)
    if not evidence.complete:
        transcribe(load_subject(subject), suite, evidence)
    return evidence.path.name


def run_gate(depth: Depth, name: str, context: GateContext) -> Observation:
    """Run one gate; what is missing on this machine makes it NOT_RUN, not failed."""
    # The gates of depth twin are those of depth header and its own, so each is found by its own.
    gate = next(g for gates in GATES.values() for g in gates if (g.depth, g.name) == (depth, name))

    def transcript(subject: Subject, suite: str) -> tuple[Answered, ...]:
        probes = next(s for s in context.suites if s.name == suite)
        run_transcript(subject, probes, context.evidence_dir)
        evidence: EvidenceFile = transcript_file(context.evidence_dir, subject, probes)
        return read_transcript(evidence.path, evidence.entries)

    with contextlib.ExitStack() as stack:
        context.work_dir.mkdir(parents=True, exist_ok=True)
        stack.callback(_empty, context.work_dir)
        try:
            seen = gate.observe(context, Tools(load_subject, transcript))
        except (ToolMissingError, FetchError) as error:
            seen = Observation(gate=name, not_run=str(error))
    return seen.model_copy(update={"depth": depth})


def _empty(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
