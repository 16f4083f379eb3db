"""A finished run on disk, and how it becomes a report again without any model.

`evidence/runs/<run>.json` is written last: it names what was looked at and which evidence
files hold it. Judging happens here, every time, from that evidence and a policy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.diagnosis import Copied, Copies, diagnose, probe_key
from harness.errors import EvidenceError, UsageError
from harness.evidence import read_finished
from harness.forgetting import compare_suite, pair
from harness.policy import Policy, load_policy
from harness.recommendation import recommend
from harness.records import (
    SCHEMA,
    Answered,
    CandidateReport,
    Comparison,
    Flip,
    Observation,
    PairedProbe,
    Provenance,
    Record,
    Report,
    Status,
    VettedCandidate,
)
from harness.training_data import TrainingData
from harness.transcripts import read_transcript
from harness.verdict import judge_comparison, judge_gate, judge_suite

FOLDER = "evidence"
"""Inside the output folder; runs are in its `runs` folder."""


class StoredCandidate(VettedCandidate):
    """One vetted candidate: what the gates saw."""

    observations: tuple[Observation, ...]


class StoredSuite(Record):
    """Where the two transcripts of one suite are, relative to the evidence folder."""

    suite: str
    before: str
    after: str


class StoredOverlap(Record):
    """What the replies of a comparison share with the adapter's training data, without the data."""

    sha256: str
    """Of the training data."""
    copied: dict[str, dict[str, tuple[float, float]]]
    """Suite → probe id → share of the reply copied, before and after; see `diagnosis.Copies`."""


class StoredComparison(Record):
    """One adapter held against its base."""

    base: str
    subject: str
    suites: tuple[StoredSuite, ...] = ()
    training: StoredOverlap | None = None
    """Only where the training data was given."""
    observations: tuple[Observation, ...] = ()
    error: str | None = None
    """Traceback of a crash; then the suites may be missing."""


class Run(Record):
    """Everything a run looked at."""

    schema_version: int = SCHEMA
    run: str
    command: str
    candidates: tuple[StoredCandidate, ...] = ()
    comparisons: tuple[StoredComparison, ...] = ()
    provenance: Provenance
    policy: Policy


def save_run(run: Run, output_dir: Path) -> Path:
    """Write the manifest atomically; returns its path.

    Raises:
        EvidenceError: the folder cannot be written.
    """
    path = output_dir / FOLDER / "runs" / f"{run.run}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A fixed name, so that what a killed run left behind is overwritten by the next one.
        partial = path.with_suffix(".tmp")
        partial.write_text(run.model_dump_json(indent=1) + "\n")
        partial.replace(path)
    except OSError as error:
        raise EvidenceError(
            f"The run could not be stored in '{path.parent}' ({error.strerror}); free some space "
            "or choose another folder with --output-dir."
        ) from error
    return path


def load_run(name: str, output_dir: Path) -> Run:
    """Find a run by its name, or by the path of its report or manifest.

    Raises:
        UsageError: there is no such run.
        EvidenceError: its manifest is damaged or from a newer harness.
    """
    folder = output_dir / FOLDER / "runs"
    stem = Path(name).name.removesuffix(".json").removesuffix(".md")
    path = folder / f"{stem}.json"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.json"))
        listing = ", ".join(known[:8]) if known else "none yet"
        raise UsageError(f"There is no run '{stem}' in '{folder}'; the runs there are: {listing}.")
    try:
        data = json.loads(path.read_text())
        schema = data.get("schema_version") if isinstance(data, dict) else None
        if isinstance(schema, int) and schema > SCHEMA:
            raise EvidenceError(
                f"'{path}' was written by a newer harness; upgrade the harness to read it."
            )
        return Run.model_validate(_with_later_gates(data))
    except (ValueError, ValidationError) as error:
        raise EvidenceError(
            f"'{path}' is damaged ({str(error).splitlines()[0]}); run the original command again."
        ) from error


def _with_later_gates(data: Any) -> Any:
    """A manifest with the shipped thresholds of gates that came after it was written."""
    policy = data.get("policy") if isinstance(data, dict) else None
    if not isinstance(policy, dict) or not isinstance(gates := policy.get("gates"), dict):
        return data
    shipped = load_policy().gates.model_dump()
    return {**data, "policy": {**policy, "gates": {**shipped, **gates}}}


def judge_run(run: Run, output_dir: Path, policy: Policy | None = None) -> Report:
    """The report of a run, from stored evidence alone.

    Args:
        policy: judge by this policy instead of the one the run was made with.

    Raises:
        EvidenceError: a transcript that the run names is missing or damaged.
    """
    chosen = policy or run.policy
    evidence = output_dir / FOLDER
    name, provenance = run.run, run.provenance
    if chosen.sha256 != run.policy.sha256:
        # Another policy makes another report; the original stays what it was.
        name = f"{run.run}-policy-{chosen.sha256[:8]}"
        settings = {**provenance.settings, "policy": chosen.sha256}
        provenance = provenance.model_copy(update={"settings": settings})
    candidates = tuple(
        CandidateReport(
            **c.model_dump(exclude={"observations"}),
            gates=tuple(judge_gate(o, chosen) for o in c.observations),
        )
        for c in run.candidates
    )
    return Report(
        run=name,
        command=run.command,
        candidates=candidates,
        recommendation=recommend(candidates),
        comparisons=tuple(_judge(c, evidence, chosen) for c in run.comparisons),
        provenance=provenance,
    )


def measure_overlap(
    suites: Sequence[StoredSuite], evidence: Path, training: TrainingData | None
) -> StoredOverlap | None:
    """How much of each stored reply is copied from `training`; None without it.

    Raises:
        EvidenceError: a transcript is missing or damaged.
    """
    if training is None:
        return None
    copies = Copies(training.examples)
    copied = {}
    for files in suites:
        sides = [
            {a.probe.id: round(copies.share(a), 4) for a in _transcript(evidence / name, name)}
            for name in (files.before, files.after)
        ]
        copied[files.suite] = {probe: (old, sides[1][probe]) for probe, old in sides[0].items()}
    return StoredOverlap(sha256=training.sha256, copied=copied)


def _judge(stored: StoredComparison, evidence: Path, policy: Policy) -> Comparison:
    gates = tuple(judge_gate(o, policy) for o in stored.observations)
    if stored.error is not None:
        last = stored.error.strip().splitlines()[-1]
        return Comparison(
            base=stored.base,
            subject=stored.subject,
            verdict=Status.ERROR,
            exit_code=4,
            reasons=(f"The comparison broke off: {last}", stored.error),
            gates=gates,
        )
    suites, changed = [], []
    all_before: list[Answered] = []
    all_after: list[Answered] = []
    copied: Copied = {}
    for files in stored.suites:
        before = _transcript(evidence / files.before, stored.base)
        after = _transcript(evidence / files.after, stored.subject)
        pairs = pair(before, after)
        all_before += before
        all_after += after
        measured = stored.training.copied.get(files.suite, {}) if stored.training else {}
        copied |= {probe_key(a): measured[a.probe.id] for a in after if a.probe.id in measured}
        suites.append(judge_suite(compare_suite(files.suite, pairs), policy))
        changed.extend(_changed(pairs))
    verdict, exit_code, reasons = judge_comparison(tuple(suites), gates, policy)
    return Comparison(
        base=stored.base,
        subject=stored.subject,
        verdict=verdict,
        exit_code=exit_code,
        reasons=tuple(reasons),
        diagnosis=diagnose(all_before, all_after, copied),
        suites=tuple(suites),
        changed=tuple(sorted(changed, key=lambda p: p.flip is not Flip.LOST)),
        gates=gates,
    )


def _transcript(path: Path, label: str) -> tuple[Answered, ...]:
    if not path.is_file():
        raise EvidenceError(
            f"The transcript of '{label}' is missing ('{path}'); run the original command again."
        )
    return read_transcript(path, read_finished(path))


def _changed(pairs: Sequence[PairedProbe]) -> list[PairedProbe]:
    return [p for p in pairs if p.flip in (Flip.LOST, Flip.GAINED)]
