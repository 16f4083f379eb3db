"""Asking a subject a probe set, with every batch stored before the next is asked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from harness.engines.protocol import Engine
from harness.errors import EvidenceError
from harness.evidence import EvidenceFile
from harness.grading import GRADER_VERSION, grade
from harness.machine import MachineFacts, machine_facts
from harness.records import Answered, Probe, ProbeSet, Question, Subject

BATCH = 32
"""Probes asked at once. Part of the cache key: a batch is the unit of repetition."""
MAX_TOKENS = {"greeting": 64, "fact": 40}
"""Reply limit by grader: enough to see a lecture begin, short enough for a laptop."""
SAMPLING = "greedy"

ASKED = {"sampling": SAMPLING, "max_tokens": MAX_TOKENS, "batch": BATCH}
"""The settings that decide what a subject answers: part of every key that rests on answers."""

ENGINE_PACKAGES = {"mlx": ("mlx", "mlx-lm"), "llamacpp": ("llama-cpp-python",), "scripted": ()}


def transcript_file(folder: Path, subject: Subject, suite: ProbeSet) -> EvidenceFile:
    """The evidence file of this subject on this probe set, whether begun or not.

    Raises:
        EvidenceError: the stored file is damaged or from a newer harness.
    """
    machine = _machine()
    spec: dict[str, Any] = {
        "what": "transcript",
        "subject": subject.fingerprint,
        "suite": suite.name,
        "probes": suite.sha256,
        "engine": subject.engine,
        "versions": {p: machine.packages.get(p) for p in ENGINE_PACKAGES[subject.engine]},
        "architecture": f"{machine.os.split()[0]} {machine.architecture}",
        **ASKED,
    }
    provenance = {
        "subject": subject.label,
        "packages": machine.packages,
        "git_commit": machine.git_commit,
        "git_dirty": machine.git_dirty,
        "machine": f"{machine.os}, {machine.chip}, {machine.cores} cores",
    }
    stem = f"{file_stem(subject.label)}--{suite.name}"
    return EvidenceFile(folder, stem, spec, provenance)


def transcribe(engine: Engine, suite: ProbeSet, evidence: EvidenceFile) -> None:
    """Ask every probe that has no stored answer yet, batch by batch.

    Raises:
        EvidenceError: a batch cannot be stored.
        ModelError: the engine cannot ask this model.
    """
    if evidence.complete:
        return
    done = {entry["batch"] for entry in evidence.entries}
    for number, batch in enumerate(batches(suite.probes)):
        if number in done:
            continue
        responses = engine.ask([question_of(p) for p in batch])
        evidence.append(
            {
                "kind": "response",
                "batch": number,
                "of": len(batch),
                "grader": GRADER_VERSION,
                **Answered(
                    probe=probe, response=response, grade=grade(probe, response.text)
                ).model_dump(mode="json"),
            }
            for probe, response in zip(batch, responses, strict=True)
        )
    evidence.finish()


def read_transcript(path: Path, entries: Sequence[dict[str, Any]]) -> tuple[Answered, ...]:
    """Stored entries as records in probe-id order; graded anew where the grader has changed.

    Raises:
        EvidenceError: an entry does not hold what it should.
    """
    answered = []
    for entry in entries:
        try:
            stored = Answered.model_validate(
                {key: entry[key] for key in ("probe", "response", "grade")}
            )
        except (KeyError, ValueError) as error:
            raise EvidenceError(
                f"'{path}' holds an answer that cannot be read ({str(error).splitlines()[0]}); "
                "delete the file and run the command again."
            ) from error
        if entry.get("grader") != GRADER_VERSION:
            regraded = grade(stored.probe, stored.response.text)
            stored = stored.model_copy(update={"grade": regraded})
        answered.append(stored)
    return tuple(sorted(answered, key=lambda a: a.probe.id))


def batches(probes: Sequence[Probe]) -> list[list[Probe]]:
    """Fixed batches of similar length, which wastes the least padding."""
    ordered = sorted(probes, key=lambda p: (len(p.prompt), p.id))
    return [ordered[i : i + BATCH] for i in range(0, len(ordered), BATCH)]


def question_of(probe: Probe) -> Question:
    """What the engine is asked for this probe."""
    options = (probe.accepted[0], *probe.distractors) if probe.distractors else ()
    return Question(
        id=probe.id,
        messages=(("user", probe.prompt),),
        options=options,
        max_tokens=MAX_TOKENS[probe.grader],
    )


@cache
def _machine() -> MachineFacts:
    return machine_facts()


def file_stem(label: str) -> str:
    """A subject's label as part of a file name: short, and without surprises."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else " " for c in label)
    return "-".join(plain.split())[:80] or "subject"
