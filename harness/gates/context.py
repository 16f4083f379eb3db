"""What a gate is given, and the shape of a gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.engines.protocol import Engine
from harness.records import (
    Answered,
    Depth,
    Finding,
    HeaderFacts,
    Observation,
    Outcome,
    ProbeSet,
    Record,
    Scalar,
    Subject,
)
from harness.registry import TrainingSettings

_NO_FIXES = ("do not trust", "expected ")
# What stands after the last semicolon of some errors and tells nobody what to do.


class GateContext(Record):
    """Everything a gate may look at. Pickled to the worker, so plain data only."""

    subject: Subject
    budget_gb: float
    """Memory that training must fit in, GB of 10⁹ bytes: Metal's working set."""
    budget_low_gb: float
    """What it is on older Macs of the same memory; `budget_gb` where Metal itself was asked."""
    mlx_name: str = "MODEL"
    """What mlx-lm's commands call the model: a Hub repository, or a folder."""
    facts: HeaderFacts | None = None
    """Below depth full: what is known of the candidate beside its ghost folder."""
    context_tokens: int
    training: TrainingSettings
    suites: tuple[ProbeSet, ...]
    evidence_dir: Path
    work_dir: Path
    """For large files; emptied after the gate."""
    cache_dir: Path
    seed: int


class Tools(NamedTuple):
    """What the worker lends a gate."""

    engine: Callable[[Subject], Engine]
    """The subject loaded, shared with the gates that run in the same process."""
    transcript: Callable[[Subject, str], tuple[Answered, ...]]
    """The subject's answers to the named suite, asked now if not stored yet."""


class Gate(NamedTuple):
    """One check of a candidate."""

    name: str
    observe: Callable[[GateContext, Tools], Observation]
    """Look, and say what was seen; judging is verdict.py's."""
    asked: Callable[[GateContext], dict[str, Any]]
    """The settings that decide the observation: part of its cache key."""
    own_process: bool = False
    """True where the gate measures its process or changes the model."""
    depth: Depth = "full"
    """How much it looks at; "header" gates need no weights."""
    version: int = 1
    """Raised when the same model would give another observation."""


def failing(sentence: str) -> Finding:
    """An error's sentence as a finding; the clause after its last semicolon is the fix."""
    message, _, fix = sentence.rpartition("; ")
    if not message or fix.startswith(_NO_FIXES):
        return Finding(severity="fail", message=sentence, fix="get the model from another source")
    return Finding(severity="fail", message=message, fix=fix)


def counted(answers: Sequence[Answered]) -> dict[str, Scalar]:
    """How many answers there are of each outcome, and the share that is right."""
    counts = Counter(answer.grade.outcome for answer in answers)
    return {
        "n": len(answers),
        "right": counts[Outcome.RIGHT],
        "wrong": counts[Outcome.WRONG],
        "no_answer": counts[Outcome.NO_ANSWER],
        "share_right": round(counts[Outcome.RIGHT] / len(answers), 4),
    }
