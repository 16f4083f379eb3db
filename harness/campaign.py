"""The one orchestrator: candidates × gates and subjects × suites, each in a worker process.

It decides what is still unknown, has workers find it out, and stores what a crash left. It
never judges: `runs.judge_run` does, from what is stored.
"""

from __future__ import annotations

import shlex
import shutil
import traceback
from functools import cached_property
from pathlib import Path

from harness import worker
from harness.checkpoints.adapters import check_adapter
from harness.checkpoints.adapters import fingerprint as adapter_fingerprint
from harness.checkpoints.chat_template import check_chat_template
from harness.checkpoints.folder import check_model_folder, fingerprint
from harness.errors import EvidenceError, FetchError, HarnessError, ModelError, WorkerDied
from harness.evidence import content_key, lock
from harness.gates import GATES, GateContext
from harness.gates.context import failing
from harness.header_sources import find_headers, header_fingerprint
from harness.machine import MachineFacts, machine_facts, working_set_gb
from harness.observing import Observer, not_run_without
from harness.policy import Policy
from harness.progress import Steps
from harness.records import (
    Depth,
    HeaderFacts,
    Observation,
    ProbeSet,
    Provenance,
    Record,
    Report,
    Subject,
)
from harness.registry import Candidate, HubSource, LocalSource
from harness.runs import (
    FOLDER,
    Run,
    StoredCandidate,
    StoredComparison,
    StoredSuite,
    judge_run,
    measure_overlap,
    save_run,
)
from harness.sources import NotHere, Ready, resolve
from harness.training_data import TrainingData, as_setting
from harness.transcripts import MAX_TOKENS, SAMPLING, file_stem, transcript_file
from harness.workers import SharedWorker, local_worker, run

ADAPTER_GATES = ("gguf",)
"""Gates that `compare --gguf` runs on the tuned model."""


class Settings(Record):
    """What holds for a whole run."""

    output_dir: Path
    cache_dir: Path
    lock_path: Path
    snapshots_dir: Path
    suites: tuple[ProbeSet, ...]
    policy: Policy
    seed: int = 0
    download: bool = False
    training: TrainingData | None = None


class Campaign:
    """One run, from its questions to its report. Use as a context manager: it holds the lock."""

    def __init__(self, settings: Settings, steps: Steps) -> None:
        self.settings = settings
        self.steps = steps
        self._evidence = settings.output_dir / FOLDER
        self._subjects: dict[str, dict[str, str]] = {}
        self._candidates: list[StoredCandidate] = []
        self._comparisons: list[StoredComparison] = []

    def __enter__(self) -> Campaign:
        self._lock = lock(self._evidence)
        # Beside the evidence, so that the next run clears what a kill left of a large GGUF file.
        self._scratch = self._evidence / "scratch"
        shutil.rmtree(self._scratch, ignore_errors=True)
        try:
            self._scratch.mkdir(exist_ok=True)
        except OSError as error:
            self._lock.release()
            raise EvidenceError(
                f"'{self._scratch}' cannot be made ({error.strerror}); free some space or choose "
                "another folder with --output-dir."
            ) from error
        self._shared = SharedWorker(self._log)
        return self

    def __exit__(self, *_: object) -> None:
        self._shared.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._lock.release()

    # -- what a command asks for ----------------------------------------------------------

    def vet(self, candidate: Candidate, alone: bool = False) -> None:
        """All gates on the real weights; a broken candidate fails, it does not stop the others.

        Raises:
            FetchError: it could not be fetched, and there are no others.
        """
        self.steps.step(f"{candidate.name}: looking for the model")
        try:
            found = self.resolve(candidate)
        except FetchError as error:
            if alone:
                raise
            found = NotHere(reason=str(error), fix="then run the same command again")
        if isinstance(found, NotHere):
            self._add_candidate(candidate, "full", _described(candidate), _absent(found, "full"))
            return
        try:
            subject = self.subject(candidate.name, found.model_dir, None, found.revision)
        except ModelError as error:
            self._add_candidate(candidate, "full", found.origin, _unloadable(str(error), "full"))
            return
        observations = self._observer.observe(self._context(subject, candidate), GATES["full"])
        self._add_candidate(candidate, "full", found.origin, observations)

    def vet_headers(self, candidate: Candidate, depth: Depth) -> None:
        """The gates that need no weights, on the candidate's ghost; see `header_sources`."""
        self.steps.step(f"{candidate.name}: looking for its headers")
        ghost = self._scratch / "ghost"
        shutil.rmtree(ghost, ignore_errors=True)
        try:
            found = find_headers(
                candidate,
                cache_dir=self.settings.cache_dir,
                lock_path=self.settings.lock_path,
                snapshots_dir=self.settings.snapshots_dir,
                work_dir=ghost,
                progress=self.steps.say,
            )
            hashes = {} if isinstance(found, NotHere) else header_fingerprint(found.folder)
        except ModelError as error:
            observations = _unloadable(str(error), depth)
            self._add_candidate(candidate, depth, _described(candidate), observations)
            return
        except FetchError as error:
            found = NotHere(reason=str(error), fix="then run the same command again")
        if isinstance(found, NotHere):
            self._add_candidate(candidate, depth, _described(candidate), _absent(found, depth))
            return
        label = self._labelled(candidate.name, hashes)
        subject = Subject(label=label, engine="mlx", model=found.folder, fingerprint=hashes)
        observer = self._observer._replace(shared=self._shared)
        seen = observer.observe(self._context(subject, candidate, found.facts), GATES[depth])
        self._add_candidate(candidate, depth, found.origin, seen, found.facts, label)

    def compare(
        self, base: Candidate, base_dir: Path, revision: str | None, adapter: Path, gguf: bool
    ) -> None:
        """One adapter against its base on every suite, and as GGUF where asked.

        Raises:
            ModelError, AdapterError: the base or the adapter is unusable.
        """
        info = check_adapter(adapter, base_dir)
        before = self.subject(base.name, base_dir, None, revision)
        label = f"{base.name} + {adapter.resolve().name}"
        after = self.subject(label, base_dir, adapter.resolve(), revision)
        label = after.label
        self.steps.say(
            f"{label}: {info.fine_tune_type}, {info.parameters:,} parameters on "
            f"{len(info.layers)} layers"
        )
        suites: tuple[StoredSuite, ...] = ()
        observations: tuple[Observation, ...] = ()
        error = None
        try:
            suites = self._transcribe(before, after)
            if gguf:
                gates = [g for g in GATES["full"] if g.name in ADAPTER_GATES]
                observations = self._observer.observe(self._context(after, base), gates)
        except HarnessError as problem:
            if not isinstance(problem, WorkerDied):
                raise
            error = f"{problem.log_tail}\n{problem}".strip()
        except Exception:  # noqa: BLE001 - a crash becomes evidence, with its traceback
            error = traceback.format_exc()
        suites = suites if error is None else ()
        stored = StoredComparison(
            base=before.label,
            subject=label,
            suites=suites,
            training=measure_overlap(suites, self._evidence, self.settings.training),
            observations=observations,
            error=error,
        )
        self._comparisons.append(stored)

    def finish(self, command: str, verb: str) -> tuple[Run, Report]:
        """Store the run and judge it."""
        asked = {
            "verb": verb,
            "subjects": self._subjects,
            "candidates": [(c.name, c.depth, c.source) for c in self._candidates],
            "comparisons": [
                (c.base, c.subject, [o.gate for o in c.observations]) for c in self._comparisons
            ],
            "suites": {s.name: s.sha256 for s in self.settings.suites},
            "policy": self.settings.policy.sha256,
            "seed": self.settings.seed,
            **as_setting(self.settings.training),
        }
        names = [c.subject for c in self._comparisons] or [c.name for c in self._candidates]
        what = names[0] if len(names) == 1 else f"{len(names)}-subjects"
        name = f"{verb}-{file_stem(what)}-{content_key(asked)[:8]}"
        stored = Run(
            run=name,
            command=command,
            candidates=tuple(self._candidates),
            comparisons=tuple(self._comparisons),
            provenance=self._provenance(),
            policy=self.settings.policy,
        )
        save_run(stored, self.settings.output_dir)
        return stored, judge_run(stored, self.settings.output_dir)

    # -- subjects -------------------------------------------------------------------------

    def resolve(self, candidate: Candidate) -> Ready | NotHere:
        """Where the candidate's model is on this machine, fetched if it may be."""
        return resolve(
            candidate,
            cache_dir=self.settings.cache_dir,
            lock_path=self.settings.lock_path,
            download=self.settings.download,
            progress=self.steps.say,
        )

    def subject(
        self, label: str, model_dir: Path, adapter: Path | None, revision: str | None
    ) -> Subject:
        """Check the files without loading them, and hash what decides the answers.

        Raises:
            ModelError, AdapterError: a file is broken, hostile or missing.
        """
        check_model_folder(model_dir)
        check_chat_template(model_dir)
        hashes = fingerprint(model_dir, self.settings.cache_dir)
        if adapter is not None:
            hashes = {**hashes, "adapter": adapter_fingerprint(adapter)}
        label = self._labelled(label, {**hashes, "revision": revision} if revision else hashes)
        return Subject(
            label=label, engine="mlx", model=model_dir, adapter=adapter, fingerprint=hashes
        )

    def _labelled(self, label: str, hashes: dict[str, str]) -> str:
        """The label, and its hashes noted; two folders of one name are told apart by the hash."""
        if self._subjects.get(label, hashes) != hashes:
            label = f"{label} {content_key(hashes)[:8]}"
        self._subjects[label] = hashes
        return label

    # -- transcripts ----------------------------------------------------------------------

    def _transcribe(self, before: Subject, after: Subject) -> tuple[StoredSuite, ...]:
        """Both subjects on every suite, in one process: the base's weights serve both."""
        jobs = [(s, suite) for s in (before, after) for suite in self.settings.suites]
        open_jobs = [
            (subject, suite, evidence)
            for subject, suite in jobs
            if not (evidence := transcript_file(self._evidence, subject, suite)).complete
        ]
        if open_jobs:
            with local_worker(self._log) as executor:
                for subject, suite, evidence in open_jobs:
                    self.steps.step(f"{subject.label}: {suite.name}", total=len(suite.probes))
                    tick = self.steps.answers_in(evidence.path)
                    run(
                        executor, self._log, tick,
                        worker.run_transcript, subject, suite, self._evidence,
                    )  # fmt: skip
        return tuple(
            StoredSuite(
                suite=suite.name,
                before=transcript_file(self._evidence, before, suite).path.name,
                after=transcript_file(self._evidence, after, suite).path.name,
            )
            for suite in self.settings.suites
        )

    def _context(
        self, subject: Subject, candidate: Candidate, facts: HeaderFacts | None = None
    ) -> GateContext:
        low, high = working_set_gb(candidate.memory_budget_gb)
        return GateContext(
            subject=subject,
            mlx_name=_mlx_name(candidate),
            facts=facts,
            budget_low_gb=low,
            budget_gb=high,
            context_tokens=candidate.context_tokens,
            training=candidate.training,
            suites=self.settings.suites,
            evidence_dir=self._evidence,
            work_dir=self._scratch / "gate",
            cache_dir=self.settings.cache_dir,
            seed=self.settings.seed,
        )

    def _add_candidate(
        self,
        candidate: Candidate,
        depth: Depth,
        source: str,
        observations: tuple[Observation, ...],
        facts: HeaderFacts | None = None,
        label: str | None = None,
    ) -> None:
        self._candidates.append(
            StoredCandidate(
                name=label or candidate.name,
                target=_target(candidate),
                depth=depth,
                source=source,
                known=facts.parts if facts else {},
                licence=candidate.licence,
                why=candidate.why,
                observations=observations,
            )
        )

    @cached_property
    def _observer(self) -> Observer:
        return Observer(self._evidence, self._log, self.steps, self._machine)

    @cached_property
    def _machine(self) -> MachineFacts:
        return machine_facts()

    @property
    def _log(self) -> Path:
        return self._scratch / "worker.log"

    def _provenance(self) -> Provenance:
        machine = self._machine
        return Provenance(
            subjects=self._subjects,
            probe_sets={s.name: s.sha256 for s in self.settings.suites},
            settings={
                "sampling": SAMPLING,
                "seed": self.settings.seed,
                "policy": self.settings.policy.sha256,
                **as_setting(self.settings.training),
                **{f"max_tokens_{k}": v for k, v in MAX_TOKENS.items()},
                **{f"probes_{s.name}": len(s.probes) for s in self.settings.suites},
            },
            packages=machine.packages,
            machine=machine.model_dump(exclude={"packages", "git_commit", "git_dirty"}),
            git={"commit": machine.git_commit, "dirty": machine.git_dirty},
        )


def _described(candidate: Candidate) -> str:
    source = candidate.source
    return str(getattr(source, "repo", None) or getattr(source, "requirement", "local folder"))


def _mlx_name(candidate: Candidate) -> str:
    """What mlx-lm's commands call it: a repository, or a folder (which the person completes)."""
    source = candidate.source
    if isinstance(source, HubSource):
        return source.repo
    return source.path.name if isinstance(source, LocalSource) else candidate.name


def _target(candidate: Candidate) -> str:
    """What `harness vet` calls it on a command line."""
    if isinstance(candidate.source, LocalSource):
        return f"--model-dir {shlex.quote(candidate.source.path.name)}"
    return candidate.name


def _absent(found: NotHere, depth: Depth) -> tuple[Observation, ...]:
    reason = f"{found.reason}; {found.fix}"
    return tuple(Observation(gate=g.name, depth=g.depth, not_run=reason) for g in GATES[depth])


def _unloadable(message: str, depth: Depth) -> tuple[Observation, ...]:
    """The load gate failed before it could run, so the others have nothing to look at."""
    first, *rest = GATES[depth]
    load = Observation(gate=first.name, depth=first.depth, findings=(failing(message),))
    return (load, *not_run_without(rest))
