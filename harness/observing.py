"""Gates on one subject, each in a worker process, with what they saw stored and found again.

A crash becomes evidence with its traceback, and the gates after it go on in a fresh process.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from harness import worker
from harness.errors import ConversionError, HarnessError, ModelError, WorkerDied
from harness.evidence import EvidenceFile
from harness.gates import Gate, GateContext
from harness.machine import MachineFacts
from harness.progress import Steps, Tick
from harness.records import Observation
from harness.transcripts import file_stem, transcript_file
from harness.workers import SharedWorker, local_worker, run


class Observer(NamedTuple):
    """Where gates run and where their observations are kept."""

    evidence: Path
    log: Path
    """What the workers print."""
    steps: Steps
    machine: MachineFacts
    shared: SharedWorker | None = None
    """A process that outlives the subject, where no weights are held; else a fresh one."""

    def observe(self, context: GateContext, gates: Sequence[Gate]) -> tuple[Observation, ...]:
        """Run what is not stored yet: one shared process, and one for each gate that needs it.

        At depth full a model that does not load ends it; without weights every gate has its own
        files to look at.
        """
        stored = {g.name: found for g in gates if (found := self._stored(g, context)) is not None}
        missing = [g for g in gates if g.name not in stored]
        seen: dict[str, Observation] = {}
        shared = [g for g in missing if not g.own_process]
        if shared:
            seen |= self._in_one_process(context, shared)
        for gate in missing:
            if gate.own_process and not _unloaded(seen | stored):
                seen |= self._in_one_process(context, [gate])
        if _unloaded(seen | stored):
            load = (seen | stored)["load"]
            return (load, *not_run_without(g for g in gates if g.name != "load"))
        return tuple(seen.get(g.name) or stored.get(g.name) or _lost(g) for g in gates)

    def _in_one_process(
        self, context: GateContext, gates: Sequence[Gate]
    ) -> dict[str, Observation]:
        seen: dict[str, Observation] = {}
        left = list(gates)
        while left and not _unloaded(seen):
            # The next gate is named before its worker starts: a start that fails is its result.
            gate = left[0]
            try:
                with self._process(gate) as executor:
                    while left and not _unloaded(seen):
                        gate = left[0]
                        seen[gate.name] = self._run(executor, gate, context)
                        left.pop(0)
                        if not _unloaded(seen):
                            self._store(gate, context, seen[gate.name])
            except HarnessError as error:
                if not isinstance(error, WorkerDied | ModelError | ConversionError):
                    raise
                tail = error.log_tail if isinstance(error, WorkerDied) else ""
                seen[gate.name] = _broken(gate, f"{tail}\n{error}".strip())
                left = [g for g in left if g.name != gate.name]
            except Exception:  # noqa: BLE001 - a crash becomes evidence, with its traceback
                seen[gate.name] = _broken(gate, traceback.format_exc())
                left = [g for g in left if g.name != gate.name]
        return seen

    def _run(self, executor: Executor, gate: Gate, context: GateContext) -> Observation:
        self.steps.step(f"{context.subject.label}: {gate.name}", _size(gate, context))
        tick = self._tick(context, gate)
        return run(executor, self.log, tick, worker.run_gate, gate.depth, gate.name, context)

    def _process(self, gate: Gate) -> AbstractContextManager[Executor]:
        if self.shared is None or gate.own_process:
            return local_worker(self.log)
        return self.shared.lend()

    def _file(self, gate: Gate, context: GateContext) -> EvidenceFile:
        spec = {
            "what": "gate",
            "gate": gate.name,
            "depth": gate.depth,
            "version": gate.version,
            "subject": context.subject.fingerprint,
            "asked": gate.asked(context),
            "packages": {k: v for k, v in self.machine.packages.items() if "harness" not in k},
            "machine": [self.machine.os.split()[0], self.machine.architecture],
        }
        depth = "" if gate.depth == "full" else f"-{gate.depth}"
        stem = f"{file_stem(context.subject.label)}--gate-{gate.name}{depth}"
        return EvidenceFile(self.evidence, stem, spec, {"subject": context.subject.label})

    def _stored(self, gate: Gate, context: GateContext) -> Observation | None:
        file = self._file(gate, context)
        return Observation.model_validate(file.entries[0]["seen"]) if file.complete else None

    def _store(self, gate: Gate, context: GateContext, seen: Observation) -> None:
        if seen.not_run is not None:
            return  # what was missing may be there next time
        file = self._file(gate, context)
        if not file.entries:
            file.append([{"kind": "observation", "seen": seen.model_dump(mode="json")}])
        file.finish()

    def _tick(self, context: GateContext, gate: Gate) -> Tick | None:
        for suite in context.suites:
            if gate.name in suite.name:
                return self.steps.answers_in(
                    transcript_file(self.evidence, context.subject, suite).path
                )
        return None


def not_run_without(gates: Iterable[Gate]) -> tuple[Observation, ...]:
    """Observations of gates that had no model to look at."""
    reason = "the model could not be loaded, see load"
    return tuple(Observation(gate=g.name, depth=g.depth, not_run=reason) for g in gates)


def _size(gate: Gate, context: GateContext) -> int | None:
    return next((len(s.probes) for s in context.suites if gate.name in s.name), None)


def _unloaded(seen: dict[str, Observation]) -> bool:
    """Whether the load gate of real weights has just failed: no other gate has a model then."""
    load = seen.get("load")
    return (
        load is not None
        and load.depth == "full"
        and any(finding.severity == "fail" for finding in load.findings)
    )


def _broken(gate: Gate, error: str) -> Observation:
    return Observation(gate=gate.name, depth=gate.depth, error=error)


def _lost(gate: Gate) -> Observation:
    return _broken(gate, "The gate left no observation.")
