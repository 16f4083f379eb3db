"""What is known, asked, seen and found: the records of the way up to a verdict."""

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
